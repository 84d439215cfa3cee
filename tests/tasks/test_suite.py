"""Suites: what a file says is what the stages get; every fault of a file in one message.

The faults of methods are in test_methods_section.py, those of sources in core/test_sources.py.
"""

from __future__ import annotations

import copy
import datetime
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from adamerge_core.errors import InputError
from tasks import wiring
from tasks.shared.protocols import adapted_rows, measured_rows
from tasks.suite import sections
from tasks.suite.fields import Section
from tasks.suite.schema import Robustness, Suite, checked, load_params, load_suite

ROOT = Path(__file__).parents[2]
MINI = ROOT / "suites" / "mini.yaml"


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
    assert len(suite.tasks) == 8
    assert tuple(suite.sources) == suite.tasks
    # the paper's: four tasks, seven corruptions, coefficients that start at 0.3
    assert len(suite.corrupt.tasks) == 4
    assert len(suite.corrupt.corruptions) == 7
    assert suite.methods["task_arithmetic"]["scaling"] == 0.3
    assert suite.methods["ties_merging"]["keep"] == 0.2
    assert suite.methods["layer_wise_adamerging"]["start"] == 0.3
    assert [name for name, method in suite.merging.items() if method.adapts] == [
        "task_wise_adamerging",
        "task_wise_adamerging_pp",
        "layer_wise_adamerging",
        "layer_wise_adamerging_pp",
    ]


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


def _sections(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield kind
    for field in kind.model_fields.values():
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, Section):
                yield from _sections(each)


LEFT_OUT = (
    "checkpoints",
    "experiments",
    "finetune",
    "head",
    "pretrain",
    "statistics",
    "traditional_mtl",
)


def test_a_section_has_no_defaults() -> None:
    """No stage depends on the code of sections: a default that changed would rerun nothing."""
    found = set(_sections(Suite))
    assert {getattr(sections, n) for n in ("Compute", "Finetune", "Statistics")} <= found
    assert Robustness in found
    optional = {
        (kind.__name__, name)
        for kind in found
        for name, field in kind.model_fields.items()
        if not field.is_required()
    }
    assert optional == {("Suite", n) for n in LEFT_OUT}


def test_every_fault_is_listed_with_key_value_and_rule(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["compute"]["device"] = "tpu"
    content["compute"]["threads"] = True
    content["seeds"] = []
    content["datasets"]["signs"]["source"] = "web"
    content["datasets"]["Bad Name"] = content["datasets"]["photos"]
    content["finetune"]["learning_rate"] = -1
    content["finetune"]["momentum"] = 0.9
    content["methods"]["ties_merging"]["keep"] = 20
    content["methods"]["fisher"] = {}
    content["registry"]["task_tolerance"] = -1.0
    del content["registry"]["average_tolerance"]
    del content["evaluate"]["trajectory_points"]
    del content["model"]
    faults = faults_of(write(tmp_path, content))
    expected = {
        "compute.device = 'tpu'": "'cpu' or 'cuda'",
        "compute.threads = True": "integer",
        "seeds = []": "at least 1",
        "datasets.signs.": "web",
        "datasets.Bad Name.[key]": "a-z, 0-9 and _ only",
        "datasets.Bad Name.": "photos",
        "finetune.learning_rate = -1": "at least 1e-12",
        "finetune.momentum": "no parameter",
        "methods.ties_merging.keep = 20": "(0, 1]",
        "methods.fisher": "rule",
        "registry.task_tolerance = -1.0": "at least 0",
        "registry.average_tolerance": "is missing",
        "evaluate.trajectory_points": "is missing",
        "model": "is missing",
    }
    assert_only(expected, faults)


def test_names_that_refer_to_nothing_are_listed(content: dict[str, Any], tmp_path: Path) -> None:
    content["tasks"] += ["mnist", "cars"]
    content["corrupt"]["tasks"] += ["eurosat"]
    content["corrupt"]["corruptions"] += ["fog"]
    content["corrupt"]["severities"] = [1, 3]
    content["pretrain"]["datasets"] += ["birds"]
    content["robustness"]["corruptions"] += ["snow"]
    content["robustness"]["severity"] = 5
    content["seeds"] = [0, 1, 0]
    content["model"]["architecture"] = "ViT-B-99"
    expected = {
        "tasks: 'cars' must be an entry of datasets: photos": "mnist",
        "tasks = ['photos',": "each must stand once",
        "corrupt.tasks: 'eurosat' must be one of tasks: photos": "mnist",
        "corrupt.corruptions.7 = 'fog'": "must be one of motion_blur, ",
        "pretrain.datasets: 'birds' must be an entry of datasets": "mnist",
        "robustness.corruptions: 'snow' must be clean or one of corrupt": "motion_blur",
        "robustness.severity = 5": "corrupt makes only 1, 3",
        "seeds = [0, 1, 0]": "each must stand once",
        "model.architecture = 'ViT-B-99'": "unknown; known are efficientnet_lite0_clip",
    }
    assert_only(expected, faults_of(write(tmp_path, content)))


def test_names_that_stand_beside_those_of_tasks_are_refused(
    content: dict[str, Any], tmp_path: Path
) -> None:
    mnist = content["datasets"]["mnist"]
    entry = {"source": "image_folder", "path": "images", "templates": ["a {}."]}
    content["datasets"] = {"average": entry, "traditional_mtl": entry, "mnist": mnist}
    content["tasks"] = ["average", "traditional_mtl"]
    content["corrupt"]["tasks"] = ["average"]
    content["pretrain"]["datasets"] = ["mnist"]
    faults = faults_of(write(tmp_path, content))
    reserved = [fault for fault in faults if "is reserved" in fault]
    assert [fault.split("'")[1] for fault in reserved] == ["average", "traditional_mtl"]


def test_pretraining_needs_images_set_aside_for_it(content: dict[str, Any], tmp_path: Path) -> None:
    del content["datasets"]["mnist"]["pretrain"]
    (fault,) = faults_of(write(tmp_path, content))
    assert fault.startswith("pretrain.datasets: mnist has no split pretrain")
    content["pretrain"]["datasets"].remove("mnist")
    assert "pretrain" not in load_suite(write(tmp_path, content)).sources["mnist"].splits()


def test_an_old_file_is_refused_with_where_the_new_form_is_described(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["download"] = content.pop("datasets")
    content["merge"] = content.pop("methods")
    content["evaluate_corrupted"] = content.pop("robustness")
    faults = faults_of(write(tmp_path, content))
    (said,) = [fault for fault in faults if "former format" in fault]
    assert said.startswith("sections download, merge, evaluate_corrupted")
    document = said.split("format: ")[1].split(" ")[0]
    text = (ROOT / document).read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in Suite.model_fields)
    for key in ("datasets", "methods", "robustness"):
        assert f"{key}: is missing" in faults


def test_keys_that_dvcs_cache_ignores_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    """A run with another value would get the results of this one out of the cache."""
    content["finetune"]["size"] = 3
    content["methods"]["ties_merging"]["nfiles"] = 1
    faults = faults_of(write(tmp_path, content))
    for key in ("finetune.size", "methods.ties_merging.nfiles"):
        assert f"{key}: DVC's cache ignores keys called size and nfiles; rename it" in faults


def test_a_file_under_another_name_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=r"suite = 'mini': must be 'own', the file's name"):
        load_suite(path, "own")


@pytest.mark.parametrize("value", ["many", 2.5, None, [], -3])
@pytest.mark.parametrize("key", ["finetune.steps", "pretrain.captions_per_step", "corrupt.images"])
def test_a_count_that_is_none_is_named_with_its_value(
    content: dict[str, Any], tmp_path: Path, key: str, value: object
) -> None:
    section, name = key.split(".")
    content[section][name] = value
    (fault,) = faults_of(write(tmp_path, content))
    assert fault.startswith(f"{key} = {value!r}: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 0])
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


def test_rules_that_need_statistics_ask_for_the_section(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["methods"]["weighed"] = {"rule": "regmean"}
    (fault,) = faults_of(write(tmp_path, content))
    assert fault.startswith("statistics: is missing, and methods.weighed needs gram_matrices")
    content["statistics"] = {"images": 100, "split": "val", "fisher_probes": 4}
    assert load_suite(write(tmp_path, content)).statistics is not None


def test_parameters_cannot_be_changed() -> None:
    suite = load_suite(MINI)
    with pytest.raises(ValueError, match="frozen"):
        suite.compute.threads = 2


@given(count=st.integers(2, 5000), fraction=st.floats(0.01, 0.99))
@settings(deadline=None)
def test_protocols_split_the_test_images(count: int, fraction: float) -> None:
    """Transductive is all of them twice; held-out shares none between the two."""
    rows = list(range(count))
    assert rows[adapted_rows(count, "transductive", fraction)] == rows
    assert rows[measured_rows(count, "transductive", fraction)] == rows
    adapted = rows[adapted_rows(count, "held_out", fraction)]
    measured = rows[measured_rows(count, "held_out", fraction)]
    assert adapted + measured == rows
    assert abs(len(measured) - fraction * count) <= 1


ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 10**400, 1.5, float("nan"), float("inf"), "", "x", "1e-3", "no such"),
    *([], [[]], [None], ["x"], [1], [{}], {}, {"x": 1}, {1: 2}, {None: None}, {("a", "b"): 1}),
    *(datetime.date(2020, 1, 1), b"x", {"x"}, {"name": None}, {"name": "trim_and_elect"}),
    *({"rule": []}, {"scaling": [0.1], "by": "accuracy"}, {"scaling": [[]], "by": "entropy"}),
)


def _places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to everything in nested mappings and lists."""
    yield place
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _places(value, (*place, key))


PLACES = [place for place in _places(yaml.safe_load(MINI.read_text(encoding="utf-8"))) if place]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    place=st.sampled_from(PLACES),
    change=st.sampled_from(("replace", "remove", "add")),
    key=st.sampled_from((None, 1, True, "x", "size", "choose", "before", "after", "preset")),
    value=st.sampled_from(ODD),
)
def test_any_slip_gives_a_message_or_a_graph(
    place: tuple[Any, ...], change: str, key: Any, value: Any
) -> None:
    content = yaml.safe_load(MINI.read_text(encoding="utf-8"))
    above = content
    for step in place[:-1]:
        above = above[step]
    if change == "remove":
        del above[place[-1]]
    elif change == "add" and isinstance(above[place[-1]], dict):
        above[place[-1]][key] = copy.deepcopy(value)
    else:
        above[place[-1]] = copy.deepcopy(value)
    with suppress(InputError):
        assert wiring.stages(checked(content, "suite.yaml"))


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ({}, "must be {package: imagenet}, {tag: TAG} or {file: PATH"),
        ({"tag": "openai", "file": "x"}, "must be {package: imagenet}, {tag: TAG} or {file: PATH"),
        ({"package": "laion"}, "no package ships them for 'efficientnet_lite0_clip'"),
        ({"tag": 7}, "model.weights.tag = 7: must be text"),
        ({"file": "x.pt", "activation": "relu"}, "must be quick_gelu"),
        ({"file": "data/x.pt", "activation": "gelu"}, "lies in data/"),
        ({"tag": "openai"}, "pretrain: model.weights has a text tower, which is not trained"),
    ],
)
def test_weights_that_are_not_said_well_are_refused(
    weights: dict[str, object], fault: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["model"]["weights"] = weights
    assert any(fault in line for line in faults_of(write(tmp_path, content)))


def test_a_suite_says_what_its_model_needs(content: dict[str, Any], tmp_path: Path) -> None:
    del content["pretrain"]
    assert_only({"pretrain": "is missing"}, faults_of(write(tmp_path, content)))
    content["model"] |= {"architecture": "ViT-B-32-quickgelu", "weights": {"tag": "openai"}}
    size = {"prepare.image_size = 64": "takes images of 224 pixels"}
    assert_only(size, faults_of(write(tmp_path, content)))
    content["prepare"]["image_size"] = 224
    assert load_suite(write(tmp_path, content)).pretrain is None


def test_imported_models_are_said_well(content: dict[str, Any], tmp_path: Path) -> None:
    del content["finetune"], content["traditional_mtl"]
    hub = {"hub": "tanganke/clip-vit-base-patch32_mnist", "revision": "main"}
    content["checkpoints"] = {
        "line": "fusionbench",
        "finetuned": {
            "mnist": hub,
            "signs": hub,
            "photos": {"file": "data/x.pt"},
            "letters": {"hub": "mnist", "revision": "newest"},
            "landuse": {"path": "x"},
            "cars": {"file": "cars.pt"},
        },
        "heads": {"svhn": {"file": "head.pt"}, "mnist": {"hub": "o/n", "revision": "main"}},
    }
    expected = {
        "mnist and signs name the same model": "each task has its own",
        "photos.file = 'data/x.pt'": "lies in data/",
        "letters.hub = 'mnist'": "ORGANISATION/NAME",
        "letters.revision = 'newest'": "40 hex digits or main",
        "finetuned.landuse = {'path': 'x'}": "must be {file: PATH} or {hub",
        "checkpoints.finetuned: 'cars'": "must be one of tasks",
        "checkpoints.heads: 'svhn'": "must be one of tasks",
        "checkpoints.heads.mnist = {": "heads are read from files",
        "finetune: is missing": "not all models are imported",
    }
    assert_only(expected, faults_of(write(tmp_path, content)))


def test_splits_that_something_reads_must_be_there(content: dict[str, Any], tmp_path: Path) -> None:
    content["datasets"]["mnist"] = {"source": "hub", "dataset": "mnist", "test_only": True}
    content["pretrain"]["datasets"].remove("mnist")
    expected = {
        "finetune: mnist has no split train": "set one aside",
        "finetune: mnist has no split val": "set one aside",
        "choose: mnist has no split val": "set one aside",
    }
    assert_only(expected, faults_of(write(tmp_path, content)))


def test_yaml_that_hides_something_is_refused_with_its_lines(tmp_path: Path) -> None:
    """The round (tests/attacks/suites/yaml_texts.py) has more."""
    path = tmp_path / "suite.yaml"
    path.write_text("a: 1\na: 2\nb: 017\nc: !x 1\nd: &d [*d]\n<<: {}\n7: e\n", encoding="utf-8")
    expected = {
        "line 2: the key 'a'": "line 1 too",
        "line 3: '017'": "quotes",
        "line 4: has the tag": "remove",
        "line 5: *d": "refers to nothing",
        "line 6: merge keys": "write the keys out",
        "line 7: YAML reads the key 7": "quotes",
    }
    assert_only(expected, faults_of(path))


def test_paths_that_dvc_cannot_name_or_the_project_writes_are_refused(
    content: dict[str, Any], tmp_path: Path
) -> None:
    entry = {"source": "image_folder", "templates": ["a {}."]}
    for number, folder in enumerate(("/x/${y}", "s3://x", "data/x", ".", "/x/a b #é")):
        content["datasets"][f"own{number}"] = {**entry, "path": folder}
    expected = {
        "own0.path": "${",
        "own1.path": "address",
        "own2.path": "data/",
        "own3.path": "itself",
    }
    assert_only(expected, faults_of(write(tmp_path, content)))


@pytest.mark.parametrize("text", ["seeds: 2020-13-45", "a: [", "- a", "a: !!int b", "\x00", "3"])
def test_a_file_that_is_no_mapping_is_one_message(text: str, tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=str(path)):
        load_suite(path)


def test_a_section_of_a_stage_lists_its_faults() -> None:
    with pytest.raises(InputError) as caught:
        sections.TraditionalMtl.of({"traditional_mtl": {"steps": "ten", "stride": 1}})
    _, *faults = str(caught.value).splitlines()
    assert_only(
        {"traditional_mtl.steps = 'ten'": "integer", "traditional_mtl.stride": "no"}, faults
    )


def test_a_method_of_the_robustness_study_has_its_statistics_collected(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["robustness"]["methods"]["regmean"] = {"rule": "regmean"}
    assert_only(
        {"statistics: is missing": "robustness.methods.regmean needs gram_matrices"},
        faults_of(write(tmp_path, content)),
    )
    content["statistics"] = {"images": 10, "split": "val", "fisher_probes": 4}
    stages = wiring.stages(load_suite(write(tmp_path, content)))
    made = {path for stage in stages.values() for path in stage.files}
    read = {path for stage in stages.values() for path in stage.deps if path.startswith("data/")}
    assert read <= made
