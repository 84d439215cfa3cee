"""Methods by name: read from the source as the registry has them, listed, and added by a file."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT

from adamerge_core.adamerging import OBJECTIVES, PRESETS, AdaptationSettings, SingularMasks
from adamerge_core.merging import PREPROCESSINGS, RULES
from adamerge_core.task_vectors import TaskVectors
from flows import cli
from tasks.adapt import adaptation_settings
from tasks.graph.paths import REFERENCES
from tasks.suite import rules
from tasks.suite.methods import Adaptation, AdaptationMethod
from tasks.suite.schema import load_suite

REGISTRIES = {
    "merge_rule": (rules.merge_rules, RULES),
    "preprocessing": (rules.preprocessings, PREPROCESSINGS),
}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_the_source_says_what_the_registry_has(kind: str) -> None:
    read, registry = REGISTRIES[kind]
    assert read().keys() == registry.keys()
    for name, rule in read().items():
        entry = registry[name]
        assert (rule.name, rule.kind) == (entry.name, kind)
        assert (rule.source, rule.needs, rule.summary) == (entry.source, entry.needs, entry.summary)
        assert rule.module == entry.function.__module__
        assert kind == "merge_rule" or rule.start == entry.start
        assert rule.doc == inspect.getdoc(entry.function)
        assert {key: each.default for key, each in rule.parameters.items()} == entry.parameters
        annotations = inspect.get_annotations(entry.function)
        for key, each in rule.parameters.items():
            annotation = annotations[key]
            plain = annotation.__name__ if isinstance(annotation, type) else str(annotation)
            assert each.annotation == plain


def test_objectives_and_options_are_those_of_the_core() -> None:
    read = {name: (rule.source, rule.needs) for name, rule in rules.objectives().items()}
    assert read == {name: (each.source, each.needs) for name, each in OBJECTIVES.items()}
    settings = AdaptationSettings()
    options = {name: each.default for name, each in rules.adaptation_options().items()}
    assert options == vars(settings)
    assert all(each.doc for each in rules.adaptation_options().values())
    assert {name: AdaptationSettings(**said) for name, said in rules.presets().items()} == PRESETS
    required = {n for n, each in AdaptationMethod.model_fields.items() if each.is_required()}
    assert rules.required_of_adaptations().keys() == required
    assert all(required <= said.keys() for said in rules.presets().values())
    masks = list(inspect.signature(SingularMasks).parameters.values())[1:]
    assert {name: each.default for name, each in rules.mask_options().items()} == {
        each.name: each.default for each in masks
    }


def test_adaptation_over_a_preprocessing_starts_at_the_merge_of_its_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    generator = torch.Generator().manual_seed(0)
    names = [f"blocks.{index}.weight" for index in range(2)]
    state = {name: torch.randn(8, 6, generator=generator, dtype=torch.float64) for name in names}
    stacks = {
        name: torch.randn(3, 8, 6, generator=generator, dtype=torch.float64) for name in names
    }
    vectors = TaskVectors(state, ("a", "b", "c"), stacks)
    rule_of = {
        "trim_and_elect": "ties_merging",
        "drop_and_rescale": "dare",
        "mask_tails": "breadcrumbs",
        "consensus_mask": "consensus",
        "scale_by_depth": "lines",
        "tsv_decorrelate": "tsv_m",
    }
    assert rule_of.keys() == PREPROCESSINGS.keys()
    for name, rule in rule_of.items():
        cli.main(["methods", name])
        (shown,) = yaml.safe_load(capsys.readouterr().out.split("section merge:\n")[-1]).values()
        start, over = shown["start"], PREPROCESSINGS[name](vectors)
        assert shown.get("clamp", "published") == ("published" if start < 1 else "none")
        merged = over.merge(torch.full((3,), start, dtype=torch.float64))
        expected = RULES[rule](vectors)
        for layer in names:
            torch.testing.assert_close(merged[layer], expected[layer], rtol=1e-9, atol=1e-9)


def test_adarank_is_shown_with_the_settings_of_its_authors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["methods", "adarank"]) == 0
    entries = capsys.readouterr().out.split("section merge:\n\n")[1:]
    explicit, by_preset = (yaml.safe_load(entry.split("\n\n")[0]) for entry in entries)
    assert by_preset == {"layer_wise_adarank": {"preset": "adarank"}}
    adaptation = AdaptationMethod(**explicit["adarank"])
    assert adaptation_settings("singular_components", adaptation) == PRESETS["adarank"]
    assert (adaptation.rank_share, adaptation.temperature) == (1.0, 10.0)


def test_all_methods_are_listed_within_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods"]) == 0
    printed = capsys.readouterr().out
    names = {line.split()[0] for line in printed.splitlines() if re.match(r"  \S", line)}
    assert {*RULES, *PREPROCESSINGS, *OBJECTIVES, *PRESETS} <= names
    assert {"pretrained", "individual", "traditional_mtl", "layer_wise_adamerging_pp"} <= names
    assert max(map(len, printed.splitlines())) <= 100
    for entry in RULES.values():
        assert entry.source.split(",")[0] in printed


def test_a_preset_is_shown_with_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods", "fast"]) == 0
    printed = capsys.readouterr().out
    assert "  layer_wise_fast: {preset: fast}\n" in printed
    for said in ("steps = 360", "images_per_task = 8", "learning_rate = 0.02", "schedule = cosine"):
        assert said in printed


@pytest.mark.parametrize("name", [*RULES, *PREPROCESSINGS, *OBJECTIVES, *PRESETS])
def test_one_method_is_shown_as_a_suite_takes_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from tasks.suite.schema import Suite

    assert cli.main(["methods", name]) == 0
    printed = capsys.readouterr().out
    registry = {**RULES, **PREPROCESSINGS, **OBJECTIVES}
    if name in registry:
        assert inspect.getdoc(registry[name].function) in printed
    entries = [part.split("\n\n")[0] for part in printed.split("section merge:\n\n")[1:]]
    shown = yaml.safe_load("\n".join(entries))
    mini = yaml.safe_load((ROOT / "suites/mini.yaml").read_text(encoding="utf-8"))
    merge = {"task_arithmetic": {"scaling": 0.3}, **shown}
    suite = Suite.model_validate({**mini, "merge": merge})
    for method, parameters in shown.items():
        given = {k: v for k, v in parameters.items() if v is not None}
        kept = suite.merge[method].model_dump(mode="json", exclude_none=True)
        assert kept == {**rules.presets().get(given.get("preset"), {}), **given}


def test_an_unknown_method_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods", "tsv"]) == 2
    said = capsys.readouterr().err
    assert "method 'tsv': unknown" in said
    assert all(name in said for name in RULES)


def test_listing_methods_is_quick() -> None:
    code = (
        "import sys; from flows import cli; cli.main(['methods']); "
        "print('loaded', *sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"torch", "numpy", "pydantic", "mlflow", "dvc", "prefect"})


def test_the_page_names_every_rule() -> None:
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    described, given = page.split("## What they give on mini")
    named = set(re.findall(r"^\| `(\w+)`", described, re.MULTILINE))
    assert set(RULES) <= named
    assert named <= {*RULES, "task_wise_adamerging", "layer_wise_adamerging"}
    suite = load_suite(ROOT / "suites/mini_methods.yaml")
    rows = re.findall(r"^\| `(\w+)` \| [\d.]+ \| [\d.]+ \|$", given, re.MULTILINE)
    assert rows == [*REFERENCES, *(name for name in suite.merge.root if name not in REFERENCES)]
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        from tasks.suite.methods import Merge

        merge = {"task_arithmetic": {"scaling": 0.3}, **yaml.safe_load(block)["merge"]}
        assert list(Merge.model_validate(merge).root) == list(merge)


_USE_OF_THE_NEW_RULE = """
import torch
from adamerge_core.errors import InputError
from adamerge_core.merging import RULES
from adamerge_core.task_vectors import TaskVectors
from tasks.suite.rules import merge_rules
from tasks.suite.methods import Merge

rule, read = RULES["median_merging"], merge_rules()["median_merging"]
assert read.module == "adamerge_core.merging.median"
assert read.summary == rule.summary and read.source == rule.source
assert {name: each.default for name, each in read.parameters.items()} == {"scaling": 1.0}
chosen = Merge.model_validate({
    "task_arithmetic": {"scaling": 0.3},
    "median_merging": {},
    "median_merging_best": {"scalings": [0.5, 1.0]},
})
assert chosen["median_merging"].model_dump() == {"scaling": 1.0}
assert chosen.of_kind("sweep") == ["median_merging_best"]

vectors = TaskVectors(
    {"w": torch.ones(3, dtype=torch.float64)},
    ("a", "b", "c"),
    {"w": torch.tensor([[1.0, 0, 5], [2, 0, -5], [9, 3, 1]], dtype=torch.float64)},
)
assert rule(vectors)["w"].tolist() == [3.0, 1.0, 2.0]
assert rule(vectors, scaling=0.5)["w"].tolist() == [2.0, 1.0, 1.5]
try:
    rule(vectors, scaling=float("nan"))
except InputError as error:
    print(error)
"""


def test_the_pages_example_is_a_rule(tmp_path: Path) -> None:
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for package in ("adamerge_core", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    (tmp_path / "adamerge_core/merging/median.py").write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _USE_OF_THE_NEW_RULE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "scaling = nan: must be above 0\n"


def test_the_defaults_shown_are_those_of_a_suite() -> None:
    """A field that is None takes the core's default, which is what is shown."""
    fields = AdaptationMethod.model_fields
    assert {each.default for each in fields.values() if not each.is_required()} == {None}
    entry = {"steps": 5, "images_per_task": 2, "learning_rate": 0.01, "start": 0.3}
    for adaptation in (Adaptation(**entry), AdaptationMethod(**entry)):
        assert adaptation_settings("layer_wise", adaptation) == AdaptationSettings(**entry)


def test_mini_draws_the_images_that_it_names_once_a_step() -> None:
    suite = load_suite(ROOT / "suites/mini.yaml")
    for method in suite.merge.of_kind("adapt"):
        settings = adaptation_settings(suite.merge.granularity(method), suite.merge[method])
        assert (settings.images_per_task, settings.batches_per_step) == (8, 1), method
    corrupted = adaptation_settings("layer_wise", suite.evaluate_corrupted.adaptation)
    assert (corrupted.images_per_task, corrupted.batches_per_step) == (8, 1)
