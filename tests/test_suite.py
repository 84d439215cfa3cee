"""Suites: what a file says is what the stages get; every fault of a file in one message."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerge_core.errors import InputError
from tasks.protocols import adapted_rows, measured_rows
from tasks.suite import Evaluate, ImageFolder, Miniature, load_params, load_suite

ROOT = Path(__file__).parents[1]
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
        "Bad Name": "pattern",
        "finetune.learning_rate = -1": "greater than 0",
        "finetune.momentum": "no parameter",
        "merge.ties_merging.keep = 20": "less than or equal to 1",
        "merge.fisher": "no parameter",
        "merge.layer_wise_adamerging.start = 1.5": "less than or equal to 1",
        "merge.task_arithmetic_best.scalings.1 = 'much'": "number",
        "evaluate.trajectory_points": "is missing",
        "model": "is missing",
    }
    for key, rule in expected.items():
        assert any(key in fault and rule in fault for fault in faults), (key, faults)
    assert len(faults) == len(expected)


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
