"""`adamerge methods`: what the registries hold, as suites take it; docs/methods.md beside it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT

from adamerge_core.adamerging import OBJECTIVES, PRESETS
from adamerge_core.merging.registry import AFTER, BEFORE, CRITERIA, RULES
from adamerge_core.method_choice import MethodChoice
from adamerge_core.task_vectors import TaskVectors
from flows import cli, model_options
from tasks.suite.fields import REFERENCES
from tasks.suite.methods import AdaptMethod, methods_faults, parse_methods
from tasks.suite.schema import load_suite

REGISTRIES = (RULES, BEFORE, AFTER, OBJECTIVES, CRITERIA)
REGISTERED = [name for registry in REGISTRIES for name in registry]
SHOWN = list(dict.fromkeys([*REGISTERED, *PRESETS]))
PAGE = ROOT / "docs/methods.md"


def entries(printed: str) -> dict[str, Any]:
    """What was printed as entries of a suite."""
    blocks = [part.split("\n\n")[0] for part in printed.split("section methods:\n\n")[1:]]
    return dict(yaml.safe_load("\n".join(blocks)))


def shown(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["methods", name]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_suite_can_run_is_printed_for_merge_and_read_by_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = shown(name, capsys)
    blocks = [part.split("\n\n")[0] for part in printed.split("In `adamerge merge`:\n\n")[1:]]
    lines = [line for block in blocks for line in block.replace("\n    ", " ").splitlines()]
    assert len(lines) == len(re.findall(r"\{(?:rule|adapt): ", printed))
    for line in lines:
        required = ["--model", "m", "--pretrained", "p", "--finetuned", "a=a", "--out", "o"]
        options = cli._parser().parse_args(["merge", *required, *shlex.split(line)])
        faults: list[str] = []
        choose = model_options.choices(options.choose, options.by, faults)
        given = model_options.settings(options.set, faults)
        assert faults == []
        MethodChoice.read(options.method, given, 8, choose)


def test_adaptation_over_what_stands_before_starts_at_the_merge_of_its_rule(
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
    assert rule_of.keys() == BEFORE.keys()
    for name, rule in rule_of.items():
        (entry,) = entries(shown(name, capsys)).values()
        start, over = entry["start"], BEFORE[name](vectors)
        assert entry.get("clamp", "published") == ("published" if start < 1 else "none")
        merged = over.merge(torch.full((3,), start, dtype=torch.float64))
        expected = RULES[rule](vectors)
        for layer in names:
            torch.testing.assert_close(merged[layer], expected[layer], rtol=1e-9, atol=1e-9)


def test_all_is_listed_within_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods"]) == 0
    printed = capsys.readouterr().out
    names = {line.split()[0] for line in printed.splitlines() if re.match(r"  \S", line)}
    assert {*SHOWN, *REFERENCES, "task_wise", "layer_wise", "singular_components"} == names
    assert max(map(len, printed.splitlines())) <= 100
    for entry in RULES.values():
        assert entry.source.split(",")[0] in printed


def test_a_preset_is_shown_with_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown("fast", capsys)
    assert "  layer_wise_fast: {adapt: layer_wise, preset: fast}\n" in printed
    for said in ("steps = 360", "images_per_task = 8", "learning_rate = 0.02", "schedule = cosine"):
        assert said in printed


def test_presets_are_shown_as_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for name, settings in PRESETS.items():
        (method,) = parse_methods(entries(shown(name, capsys))).values()
        assert isinstance(method, AdaptMethod)
        assert method.settings == settings


@pytest.mark.parametrize("name", [*SHOWN, "task_wise", "layer_wise", "singular_components"])
def test_each_is_shown_as_a_suite_takes_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(name, capsys)
    for registry in REGISTRIES:
        if name in registry:
            assert registry[name].doc in printed
    assert methods_faults(entries(printed)) == []


def test_an_unknown_name_gets_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods", "tsv"]) == 2
    said = capsys.readouterr().err
    assert "method 'tsv': unknown" in said
    assert all(name in said for name in RULES)


def test_the_page_names_everything_and_its_entries_are_sound() -> None:
    page = PAGE.read_text(encoding="utf-8")
    described, given = page.split("## What they give on mini")
    named = set(re.findall(r"^\| `(\w+)`", described, re.MULTILINE))
    assert named == {*REGISTERED, "task_wise", "layer_wise", "singular_components"}
    suite = load_suite(ROOT / "suites/mini_methods.yaml")
    rows = re.findall(r"^\| `(\w+)` \| [\d.]+ \| [\d.]+ \|$", given, re.MULTILINE)
    assert rows == [*REFERENCES, *suite.merging]
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        assert methods_faults(yaml.safe_load(block)["methods"]) == []


_USE_OF_THE_NEW_RULE = """
import torch
from adamerge_core.errors import InputError
from adamerge_core.merging import RULES
from adamerge_core.method_choice import MethodChoice
from adamerge_core.task_vectors import TaskVectors
from tasks.suite.methods import methods_faults, parse_methods

rule = RULES["median_merging"]
assert rule.module == "adamerge_core.merging.median"
chosen = parse_methods({
    "median": {"rule": "median_merging"},
    "best": {"rule": "median_merging", "choose": {"scaling": [0.5, 1.0], "by": "entropy"}},
})
assert chosen["median"].modules == ("adamerge_core.merging.median",)

vectors = TaskVectors(
    {"w": torch.ones(3, dtype=torch.float64)},
    ("a", "b", "c"),
    {"w": torch.tensor([[1.0, 0, 5], [2, 0, -5], [9, 3, 1]], dtype=torch.float64)},
)
assert rule(vectors)["w"].tolist() == [3.0, 1.0, 2.0]
assert rule(vectors, scaling=0.5)["w"].tolist() == [2.0, 1.0, 1.5]
print(*methods_faults({"median": {"rule": "median_merging", "scaling": -1}}))
"""


@pytest.mark.slow
def test_the_pages_examples_are_parts_of_methods(tmp_path: Path) -> None:
    examples = re.findall(
        r"`(adamerge_core/merging/\w+\.py)`:\n\n```python\n(.*?)```",
        PAGE.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert [path for path, _ in examples] == [
        "adamerge_core/merging/median.py",
        "adamerge_core/merging/shorten.py",
    ]
    for package in ("adamerge_core", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    for path, text in examples:
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert run(tmp_path, _USE_OF_THE_NEW_RULE) == ("methods.median.scaling = -1: must be above 0\n")
    assert run(tmp_path, _USE_OF_WHAT_STANDS_AFTER) == "('adamerge_core.merging.shorten',)\n"


_USE_OF_WHAT_STANDS_AFTER = """
import torch
from adamerge_core.method_choice import MethodChoice
from adamerge_core.task_vectors import TaskVectors
from tasks.shared.methods import make_model
from tasks.suite.methods import parse_method

entry = {"rule": "task_arithmetic", "scaling": 1.0}
pretrained = {"w": torch.zeros(2, dtype=torch.float64)}
stack = {"w": torch.tensor([[3.0, 4.0], [3.0, 4.0]], dtype=torch.float64)}
vectors = TaskVectors(pretrained, ("a", "b"), stack)
method = parse_method({**entry, "after": {"name": "shorten", "times": 2.0}})
merged = make_model(method, vectors, {})
torch.testing.assert_close(merged["w"], torch.tensor([6.0, 8.0], dtype=torch.float64))
method = parse_method({**entry, "after": "shorten"})
merged = make_model(method, vectors, {})
torch.testing.assert_close(merged["w"], torch.tensor([3.0, 4.0], dtype=torch.float64))
print(method.modules[1:])
"""


def run(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mini_draws_the_images_that_it_names_once_a_step() -> None:
    suite = load_suite(ROOT / "suites/mini.yaml")
    for name, method in {**suite.merging, **suite.robust}.items():
        if isinstance(method, AdaptMethod):
            settings = method.settings
            assert (settings.images_per_task, settings.batches_per_step) == (8, 1), name
