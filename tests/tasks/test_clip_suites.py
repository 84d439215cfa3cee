"""The suites of the paper's setting: as they are written, and what they read."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from adamerge_core.vision.datasets.published import published_dataset
from dev.clip_suites import COUNTS, KINDS, MODELS, suites
from tasks import wiring
from tasks.suite.schema import Suite, load_suite

NAMES = tuple(suites())


@pytest.fixture(scope="module")
def loaded() -> dict[str, Suite]:
    return {name: load_suite(ROOT / "suites" / f"{name}.yaml", name) for name in NAMES}


def test_the_files_are_what_the_program_writes() -> None:
    """Mend them there: `python -m dev.clip_suites`."""
    assert len(NAMES) == len(MODELS) * len(COUNTS) * len(KINDS) == 27
    found = {path.stem: path.read_text() for path in (ROOT / "suites").glob("clip-vit-*.yaml")}
    assert found == suites()


def test_each_has_its_tasks_and_imports_all_models_or_none(loaded: dict[str, Suite]) -> None:
    for name, suite in loaded.items():
        count, kind = name.split("-")[-2:]
        assert len(suite.tasks) == int(count)
        imported = set() if kind == "finetune" else set(suite.tasks)
        assert set(suite.imported) == imported
        assert (suite.finetune is None) == (kind != "finetune")
        assert {source.splits() for source in suite.sources.values()} == {
            ("train", "val", "test") if kind == "finetune" else ("test",)
        }


def test_trap_9_a_models_folder_holds_one_line_of_checkpoints(loaded: dict[str, Suite]) -> None:
    """Never two lines in one column."""
    lines: dict[str, set[str]] = {}
    for suite in loaded.values():
        line = suite.checkpoints.line if suite.checkpoints else "own"
        lines.setdefault(suite.model.name, set()).add(line)
    assert len(lines) == 12
    assert all(len(each) == 1 for each in lines.values())


def test_an_import_depends_on_the_code_of_every_format(
    loaded: dict[str, Suite], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    stages = wiring.stages(loaded["clip-vit-b-32-8-fusionbench"])
    deps = stages["import_finetuned_mnist@clip-vit-b-32-fusionbench-0"].deps
    formats = (ROOT / "adamerge_core/vision/checkpoint_formats").glob("[a-z]*.py")
    assert {path.relative_to(ROOT).as_posix() for path in formats} <= set(deps)


def test_trap_2_emnist_is_letters_or_digits_by_the_line(loaded: dict[str, Suite]) -> None:
    for name, digits in (("fusionbench", False), ("finetune", False), ("local", True)):
        entry = loaded[f"clip-vit-b-32-20-{name}"].datasets["emnist"]
        dataset = published_dataset(entry["dataset"])
        assert dataset.name == ("emnist_digits" if digits else "emnist_letters")
        assert len(dataset.classes) == (10 if digits else 26)


def test_trap_3_fer2013_of_the_tall_line_has_its_published_head(loaded: dict[str, Suite]) -> None:
    for name, suite in loaded.items():
        heads = suite.checkpoints.heads if suite.checkpoints else {}
        tall = name.endswith("-local") and "-8-" not in name
        assert [Path(entry["file"]).name for entry in heads.values()] == (
            ["head_FER2013Val.pt"] if tall else []
        )


def test_trap_1_openais_weights_are_in_a_model_with_quickgelu(loaded: dict[str, Suite]) -> None:
    for suite in loaded.values():
        assert suite.model.weights == {"tag": "openai"}
        assert suite.model.architecture.endswith("-quickgelu")
