"""Suites: what a file says is what the stages get; every fault of a file in one message."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerge_core.adamerging import PRESETS, AdaptationSettings
from adamerge_core.errors import InputError
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.suite import source_tables
from tasks.suite.methods import AdaptationMethod
from tasks.suite.rules import merge_rules
from tasks.suite.schema import Evaluate, ImageFolder, Miniature, load_params, load_suite

ROOT = Path(__file__).parents[2]
MINI = ROOT / "suites" / "mini.yaml"
METHODS = (
    "weight_averaging",
    "task_arithmetic",
    "task_arithmetic_best",
    "ties_merging",
    "ties_merging_best",
    "task_wise_adamerging",
    "task_wise_adamerging_pp",
    "layer_wise_adamerging",
    "layer_wise_adamerging_pp",
)


@pytest.fixture
def content() -> dict[str, Any]:
    """The mini suite as plain dicts, to change."""
    return copy.deepcopy(yaml.safe_load(MINI.read_text(encoding="utf-8")))


def write(folder: Path, content: Any) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def assert_only(expected: dict[str, str], faults: list[str]) -> None:
    """One fault for each parameter, with the rule that it breaks, and no others."""
    for key, rule in expected.items():
        assert any(key in fault and rule in fault for fault in faults), (key, faults)
    assert len(faults) == len(expected), faults


def faults_of(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_suite(path)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{path}: {len(rest)} fault")
    return [line.removeprefix("  - ") for line in rest]


def test_the_mini_suite_loads() -> None:
    suite = load_suite(MINI)
    assert suite.name == "mini"
    assert len(suite.task_names) == 8
    assert all(isinstance(suite.task(name), Miniature) for name in suite.task_names)
    for method in METHODS:
        assert suite.merge[method] is not None
    # the paper's: four tasks, seven corruptions, coefficients that start at 0.3
    assert len(suite.corrupt.tasks) == 4
    assert len(suite.corrupt.corruptions) == 7
    assert suite.merge["task_arithmetic"].scaling == 0.3
    assert suite.merge["ties_merging"].keep == 0.2
    assert suite.merge["layer_wise_adamerging"].start == 0.3


@pytest.mark.parametrize("path", sorted((ROOT / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_suite_loads_under_its_files_name_and_survives_a_round_trip(
    path: Path, tmp_path: Path
) -> None:
    suite = load_suite(path)
    assert suite.name == path.stem
    again = load_suite(write(tmp_path, suite.raw))
    assert again == suite
    assert again.raw == suite.raw


def test_the_committed_params_are_a_suite_to_the_byte() -> None:
    """What is committed, not the working copy: changing params.yaml is what a user does."""
    shown = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True)
    if shown.returncode:
        pytest.skip("not a git checkout")
    assert shown.stdout == MINI.read_bytes()


def test_without_a_suite_the_message_says_how_to_choose_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="adamerge suite use mini") as caught:
        load_params(tmp_path)
    assert str(tmp_path / "params.yaml") in str(caught.value)


def test_every_fault_is_listed_with_key_value_and_rule(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["compute"]["device"] = "tpu"
    content["seeds"] = []
    content["download"]["mnist"]["train"] = 0
    content["download"]["signs"]["source"] = "web"
    content["download"]["Bad Name"] = content["download"]["photos"]
    content["finetune"]["learning_rate"] = -1
    content["finetune"]["momentum"] = 0.9
    content["merge"]["ties_merging"]["keep"] = 20
    content["merge"]["fisher"] = {}
    content["merge"]["layer_wise_adamerging"]["start"] = 1.5
    content["merge"]["task_arithmetic_best"]["scalings"] = [0.1, "much"]
    del content["evaluate"]["trajectory_points"]
    del content["model"]
    faults = faults_of(write(tmp_path, content))
    expected = {
        "compute.device = 'tpu'": "'cpu' or 'cuda'",
        "seeds = []": "at least 1",
        "download.mnist.train = 0": "greater than or equal to 1",
        "download.signs": "'miniature', 'image_folder'",
        "Bad Name.[key]": "pattern",
        "Bad Name: there is no such miniature": "there are photos",
        "finetune.learning_rate = -1": "greater than 0",
        "finetune.momentum": "no parameter",
        "merge.ties_merging.keep = 20": "less than or equal to 1",
        "merge.fisher": "no parameter",
        "merge.layer_wise_adamerging.start = 1.5": "in [0, 1], or clamp must be none",
        "merge.task_arithmetic_best.scalings.1 = 'much'": "number",
        "evaluate.trajectory_points": "is missing",
        "model": "is missing",
    }
    assert_only(expected, faults)


def test_names_that_refer_to_nothing_are_listed(content: dict[str, Any], tmp_path: Path) -> None:
    content["corrupt"]["tasks"] += ["cars", "eurosat"]
    content["corrupt"]["severities"] = [1, 3]
    content["evaluate_corrupted"]["corruptions"] += ["fog"]
    content["evaluate_corrupted"]["severity"] = 5
    content["seeds"] = [0, 1, 0]
    faults = faults_of(write(tmp_path, content))
    assert len(faults) == 5
    for name in ("cars", "eurosat"):
        assert any(f"corrupt.tasks: '{name}' is unknown; known are photos" in f for f in faults)
    assert any("'fog' is unknown; known are clean, motion_blur" in fault for fault in faults)
    assert any("evaluate_corrupted.severity = 5: corrupt makes only 1, 3" in f for f in faults)
    assert any("seeds = [0, 1, 0]: each must stand once" in fault for fault in faults)


def test_what_stages_would_not_know_is_listed(content: dict[str, Any], tmp_path: Path) -> None:
    content["corrupt"]["corruptions"] += ["fog"]
    content["model"]["architecture"] = "ViT-B-32"
    content["download"]["cars"] = content["download"]["photos"]
    content["download"]["mnist"] |= {"train": 5000, "test": 1201, "val": 400}
    content["download"]["mine"] = folder_task(templates=["a {}.", "a {} {}.", "{x} of {}", "{0}"])
    content["suite"] = "mini"
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load_suite(path, "own")
    expected = {
        "corrupt.corruptions.7 = 'fog'": "must be one of motion_blur, ",
        "model.architecture = 'ViT-B-32'": "must be one of efficientnet_lite0_clip",
        "download.cars: there is no such miniature": "there are photos, vehicles",
        "download.mnist.train = 5000": "only 3200 images",
        "download.mnist.test = 1201": "only 1200 images",
        "download.mine.templates.1 = 'a {} {}.'": "must hold {} once",
        "download.mine.templates.2 = '{x} of {}'": "must hold {} once",
        "download.mine.templates.3 = '{0}'": "must hold {} once",
        "suite = 'mini': must be 'own'": "the file's name",
    }
    assert_only(expected, str(caught.value).splitlines()[1:])


def test_the_names_that_are_read_are_those_of_the_code() -> None:
    from adamerge_core.vision import miniature
    from adamerge_core.vision.corruptions import CORRUPTIONS
    from adamerge_core.vision.encoders import ARCHITECTURES
    from adamerge_core.vision.miniature import mnist

    assert source_tables.architectures() == tuple(ARCHITECTURES)
    assert source_tables.corruptions() == tuple(CORRUPTIONS)
    assert source_tables.miniatures() == miniature.TASK_NAMES
    assert source_tables.supply("mnist") == {s: mnist.supply(s) for s in miniature.SPLITS}
    assert source_tables.supply("letters") == {}


def test_checking_a_suite_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from pathlib import Path; from tasks.suite.schema import load_suite; "
        "load_suite(Path('suites/mini_methods.yaml')); "
        "sys.exit(bool({'torch', 'numpy', 'albumentations'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("value", ["many", 2.5, None, [], -3])
@pytest.mark.parametrize("key", ["finetune.steps", "pretrain.captions_per_step", "corrupt.images"])
def test_a_count_that_is_none_is_named_with_its_value(
    content: dict[str, Any], tmp_path: Path, key: str, value: object
) -> None:
    section, name = key.split(".")
    content[section][name] = value
    (fault,) = faults_of(write(tmp_path, content))
    assert fault.startswith(f"{key} = {value!r}: ")


@pytest.mark.parametrize("value", [float("nan"), -0.1, 0])
def test_a_learning_rate_must_be_a_positive_number(
    content: dict[str, Any], tmp_path: Path, value: float
) -> None:
    content["pretrain"]["learning_rate"] = value
    (fault,) = faults_of(write(tmp_path, content))
    assert fault.startswith(f"pretrain.learning_rate = {value!r}: ")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"", "holds no sections"),
        (b"- a\n- b\n", "holds no sections"),
        (b"just text", "holds no sections"),
        (b"suite: [", "not readable as YAML"),
        (b"\xff\xfe\x00bytes", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_suite_is_named(tmp_path: Path, text: bytes, part: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(text)
    with pytest.raises(InputError, match=part) as caught:
        load_suite(path)
    assert str(path) in str(caught.value)


def test_unknown_methods_and_tasks_name_the_known_ones(
    content: dict[str, Any], tmp_path: Path
) -> None:
    del content["merge"]["ties_merging_best"]
    suite = load_suite(write(tmp_path, content))
    for method in ("fisher", "ties_merging_best", "model_fields", "__class__"):
        with pytest.raises(InputError) as caught:
            _ = suite.merge[method]
        assert repr(method) in str(caught.value)
        known = str(caught.value).split("known are ")[1].split(", ")
        assert known == [name for name in METHODS if name != "ties_merging_best"]
    with pytest.raises(InputError) as caught:
        suite.task("cars")
    assert "'cars'" in str(caught.value)
    assert all(name in str(caught.value) for name in suite.task_names)


# --- any rule, any adaptation -------------------------------------------------------------------


def test_a_rule_takes_its_defaults_written_out(content: dict[str, Any], tmp_path: Path) -> None:
    content["merge"] = {
        "wudi": {"learning_rate": "1e-4"},  # YAML reads 1e-4 as text
        "task_arithmetic": {"scaling": 0.3},
        "breadcrumbs": {"beta": 0.5},
        "iso_cts_best": {"scalings": [1, 1.5]},
        "tsv_m": {"rank_share": None},
        "lines": {},
    }
    suite = load_suite(write(tmp_path, content))
    assert suite.raw["merge"] == {
        "wudi": {"steps": 300, "learning_rate": 1e-4},
        "task_arithmetic": {"scaling": 0.3},
        "breadcrumbs": {"scaling": 0.3, "beta": 0.5, "gamma": 0.994},
        "iso_cts_best": {"scalings": [1.0, 1.5], "common_share": 0.8},
        "tsv_m": {"scaling": 1.0},
        "lines": {"beta": 0.5},
    }
    assert list(suite.raw["merge"]) == list(content["merge"])
    assert suite.merge["tsv_m"].model_dump() == {"scaling": 1.0, "rank_share": None}
    assert [suite.merge[method].kind for method in suite.merge.root] == (
        ["merge", "merge", "merge", "sweep", "merge", "merge"]
    )
    rule = suite.merge.rule("iso_cts_best")
    assert rule is not None
    assert rule.name == "iso_cts"


def test_every_rule_takes_its_defaults_without_a_parameter(
    content: dict[str, Any], tmp_path: Path
) -> None:
    swept = [name for name, rule in merge_rules().items() if "scaling" in rule.parameters]
    content["statistics"] = {"images": 10, "split": "val", "fisher_probes": 2}
    content["merge"] = {name: {} for name in merge_rules()}
    content["merge"] |= {f"{name}_best": {"scalings": [0.5]} for name in swept}
    content["merge"] |= {"layer_wise_adamerging_pp": {"preset": "paper"}}
    suite = load_suite(write(tmp_path, content))
    for name, rule in merge_rules().items():
        defaults = {key: each.default for key, each in rule.parameters.items()}
        assert suite.merge[name].model_dump() == defaults
        if name in swept:
            del defaults["scaling"]
            assert suite.merge[f"{name}_best"].model_dump() == {"scalings": (0.5,), **defaults}
    assert {"task_arithmetic", "ties_merging"} <= set(swept)
    assert suite.merge["layer_wise_adamerging_pp"].keep == 0.2


def test_scaling_and_keep_have_their_range_in_every_rule(
    content: dict[str, Any], tmp_path: Path
) -> None:
    steps = {"steps": 5, "images_per_task": 2, "learning_rate": 0.01, "start": 0.3}
    over = {"preprocessing": "trim_and_elect", "preprocessing_parameters": {"keep": 20}}
    content["merge"] |= {
        "task_arithmetic": {"scaling": 0},
        "ties_merging": {"scaling": float("inf"), "keep": 0},
        "ties_merging_best": {"scalings": [0.3], "keep": 2},
        "tsv_m": {"scaling": -1},
        "layer_wise_adamerging": {},
        "layer_wise_trimmed": {**steps, **over},
    }
    expected = {
        "merge.task_arithmetic.scaling = 0": "greater than 0",
        "merge.ties_merging.scaling = inf": "finite",
        "merge.ties_merging.keep = 0": "greater than 0",
        "merge.ties_merging_best.keep = 2": "less than or equal to 1",
        "merge.tsv_m.scaling = -1": "greater than 0",
        **{f"merge.layer_wise_adamerging.{name}": "is missing" for name in steps},
        "merge.layer_wise_trimmed.preprocessing_parameters.keep = 20": "less than or equal to 1",
    }
    assert_only(expected, faults_of(write(tmp_path, content)))


def test_faults_of_rules_and_adaptations_are_listed_together(
    content: dict[str, Any], tmp_path: Path
) -> None:
    steps = {"steps": 5, "images_per_task": 2, "learning_rate": 0.01, "start": 0.3}
    content["merge"] |= {
        "iso_c": {"scaling": "much"},
        "iso_cts": {"scaling": float("nan"), "share": 0.5},
        "dare": {"seed": 0.5},
        "wudi_best": {"scalings": [1.0]},
        "tsv": {},
        "tsv_m_best": {"scalings": []},
        "regmean": {},
        "layer_wise_odd": {**steps, "objective": "accuracy", "clamp": "soft", "held_out_share": 1},
        "layer_wise_over_odd": {**steps, "preprocessing": "odd", "batches_per_step": 0},
        "layer_wise_over_tsv": {
            **steps,
            "preprocessing": "tsv_decorrelate",
            "preprocessing_parameters": {"keep": 0.2},
        },
        "layer_wise_over_none": {**steps, "preprocessing_parameters": {"keep": 0.2}},
        "adarank": {**steps, "granularity": "singular_components", "clamp": "projected"},
        "task_wise_ranked": {**steps, "rank_share": 0.5},
        "task_wise_pp": {**steps, "keep": 0.2, "preprocessing": "mask_tails"},
        "layer_wise_from_nan": {**steps, "start": float("nan"), "clamp": "none"},
        "layer_wise_from_two": {**steps, "start": 2, "clamp": "projected", "rank_share": 0.5},
    }
    faults = faults_of(write(tmp_path, content))
    expected = {
        "merge.iso_c.scaling = 'much'": "number",
        "merge.iso_cts.scaling = nan": "finite",
        "merge.iso_cts.share": "iso_cts takes scaling, common_share",
        "merge.dare.seed = 0.5": "integer",
        "merge.wudi_best": "adamerge methods",
        "merge.tsv:": "adamerge methods",
        "merge.tsv_m_best.scalings = []": "at least 1",
        "merge.layer_wise_odd.objective = 'accuracy'": "one of entropy, ",
        "merge.layer_wise_odd.clamp = 'soft'": "'published', 'projected' or 'none'",
        "merge.layer_wise_odd.held_out_share = 1": "less than 1",
        "merge.layer_wise_over_odd.preprocessing = 'odd'": "tsv_decorrelate",
        "merge.layer_wise_over_odd.batches_per_step = 0": "greater than or equal to 1",
        "merge.layer_wise_over_tsv.preprocessing_parameters.keep": "no parameter",
        "merge.layer_wise_over_none.preprocessing_parameters": "name one",
        "merge.adarank.clamp = 'projected'": "leave it out",
        "merge.task_wise_ranked.rank_share = 0.5": "only of granularity singular_components",
        "merge.task_wise_pp.preprocessing": "no parameter",
        "merge.layer_wise_from_nan.start = nan": "finite",
        "merge.layer_wise_from_two.start = 2": "in [0, 1], or clamp must be none",
        "merge.layer_wise_from_two.rank_share = 0.5": "only of granularity singular_components",
        "statistics: is missing, and merge.regmean needs gram_matrices": "fisher_probes: 4",
    }
    assert_only(expected, faults)


def test_statistics_are_needed_by_rules_alone(content: dict[str, Any], tmp_path: Path) -> None:
    assert load_suite(write(tmp_path, content)).raw.keys() == content.keys()
    content["merge"]["fisher_merging"] = {}
    content["statistics"] = {"images": 10, "split": "validation", "fisher_probes": 0}
    faults = faults_of(write(tmp_path, content))
    assert [fault.split(":")[0] for fault in faults] == [
        "statistics.split = 'validation'",
        "statistics.fisher_probes = 0",
    ]
    content["statistics"] = {"images": 10, "split": "val", "fisher_probes": 2}
    assert load_suite(write(tmp_path, content)).merge.statistics == ["fisher_diagonal"]


def test_adaptations_have_the_choices_of_the_core() -> None:
    from adamerge_core.adamerging import settings as core

    choices = {"granularity": core.GRANULARITIES, "clamp": core.CLAMPS, "schedule": core.SCHEDULES}
    for name, known in choices.items():
        literal = get_args(AdaptationMethod.model_fields[name].annotation)[0]
        assert get_args(literal) == known
    fields = {field.name for field in dataclasses.fields(core.AdaptationSettings)}
    assert fields <= set(AdaptationMethod.model_fields)


def test_settings_of_adaptations_reach_the_core() -> None:
    from tasks.adapt import adaptation_settings

    suite = load_suite(ROOT / "suites" / "mini_methods.yaml")
    for method in suite.merge.of_kind("adapt"):
        granularity = suite.merge.granularity(method)
        chosen = adaptation_settings(granularity, suite.merge[method])
        assert chosen.faults() == []
        given = suite.raw["merge"][method]
        assert {k: v for k, v in vars(chosen).items() if k in given} == {
            k: v for k, v in given.items() if k in vars(chosen)
        }
    assert suite.merge.granularity("task_wise_adamerging_pp") == "task_wise"
    assert suite.merge.granularity("adarank") == "singular_components"
    over = suite.merge.preprocessing("layer_wise_tsv")
    assert over is not None
    assert over.name == "tsv_decorrelate"


@pytest.mark.parametrize("name", PRESETS)
def test_an_entry_that_names_a_preset_has_its_settings(
    content: dict[str, Any], tmp_path: Path, name: str
) -> None:
    from tasks.adapt import adaptation_settings

    wanted = PRESETS[name]
    content["merge"] |= {
        "chosen": {"preset": name, "steps": None},
        "chosen_pp": {"preset": name},
        "changed": {"preset": name, "steps": 7, "start": 0.5, "granularity": "layer_wise"},
        "task_wise_changed": {"preset": name, "unlabeled_share": 0.5},
    }
    suite = load_suite(write(tmp_path, content))
    assert load_suite(write(tmp_path, suite.raw)) == suite

    def settings_of(method: str) -> AdaptationSettings:
        return adaptation_settings(suite.merge.granularity(method), suite.merge[method])

    assert settings_of("chosen") == settings_of("chosen_pp") == wanted
    changes = {"steps": 7, "start": 0.5, "granularity": "layer_wise"}
    assert settings_of("changed") == dataclasses.replace(wanted, **changes)
    singular = wanted.granularity == "singular_components"
    assert settings_of("task_wise_changed") == dataclasses.replace(
        wanted,
        unlabeled_share=0.5,
        granularity="singular_components" if singular else "task_wise",
    )


def test_an_unknown_preset_names_the_known_ones(content: dict[str, Any], tmp_path: Path) -> None:
    content["merge"] |= {
        "layer_wise_quick": {"preset": "quick"},
        "layer_wise_five": {"preset": 5},
        "layer_wise_fast": {"preset": "fast", "steps": 0, "start": 1.5, "pace": 1},
    }
    expected = {
        "merge.layer_wise_quick.preset = 'quick'": "must be one of paper, fast, adarank",
        "merge.layer_wise_five.preset = 5": "string",
        "merge.layer_wise_fast.steps = 0": "greater than or equal to 1",
        "merge.layer_wise_fast.pace": "no parameter",
    }
    assert_only(expected, faults_of(write(tmp_path, content)))


def folder_task(**changes: Any) -> dict[str, Any]:
    task = {"source": "image_folder", "path": "photos", "templates": ["a photo of a {}."]}
    return {key: value for key, value in (task | changes).items() if value is not None}


def test_a_users_own_images_are_a_task(content: dict[str, Any], tmp_path: Path) -> None:
    content["download"]["mine"] = folder_task(val_fraction=0.25)
    task = load_suite(write(tmp_path, content)).task("mine")
    assert isinstance(task, ImageFolder)
    assert (task.path, task.templates) == ("photos", ("a photo of a {}.",))
    assert (task.val_fraction, task.seed) == (0.25, 0)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"path": None}, "download.mine.path: is missing"),
        ({"templates": []}, "download.mine.templates = "),
        ({"templates": ["a photo"]}, "download.mine.templates.0 = 'a photo': "),
        ({"val_fraction": 1.5}, "download.mine.val_fraction = 1.5: "),
        ({"train": 20}, "download.mine.train: is no parameter"),
    ],
)
def test_faults_of_a_users_own_images_are_named(
    content: dict[str, Any], tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    content["download"]["mine"] = folder_task(**changes)
    assert part in faults_of(write(tmp_path, content))[0]


def test_parameters_cannot_be_changed() -> None:
    suite = load_suite(MINI)
    change: Callable[[], None] = lambda: setattr(suite.finetune, "steps", 1)  # noqa: E731
    with pytest.raises(ValueError, match="frozen"):
        change()


@given(count=st.integers(2, 500), fraction=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=100)
def test_protocols_split_the_test_images(count: int, fraction: float) -> None:
    chosen = Evaluate(held_out_fraction=fraction, trajectory_images=1, trajectory_points=2)
    rows = list(range(count))
    assert rows[adapted_rows(count, "transductive", chosen)] == rows
    assert rows[measured_rows(count, "transductive", chosen)] == rows
    adapted = rows[adapted_rows(count, "held_out", chosen)]
    measured = rows[measured_rows(count, "held_out", chosen)]
    assert adapted + measured == rows
    assert abs(len(measured) - fraction * count) <= 0.5 + 1e-9
