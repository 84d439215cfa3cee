"""Top-1 accuracy, and the tables that a stage writes of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CLASSES, TinyEncoder, tiny_problem

from adamerge_core.errors import InputError
from adamerge_core.evaluation import correct, percent, with_average
from tasks.shared.resumable_rows import ResumableRows
from tasks.shared.tables import write_csv


@pytest.fixture
def problem():
    return tiny_problem(images=37)


@pytest.fixture
def encoder(problem) -> TinyEncoder:
    encoder = TinyEncoder()
    encoder.load_state_dict(problem.pretrained)
    return encoder


@pytest.mark.parametrize("task_name", CLASSES)
@pytest.mark.parametrize("batch_size", [1, 2, 7, 37, 500])
def test_correct_equals_numpy_whatever_the_batches(
    problem, encoder: TinyEncoder, task_name: str, batch_size: int
) -> None:
    images, head = problem.images[task_name], problem.heads[task_name]
    labels = np.random.default_rng(0).integers(0, CLASSES[task_name], len(images))
    logits = head(encoder(images)).detach().numpy()
    expected = np.array(
        [np.argmax(row) == label for row, label in zip(logits, labels, strict=True)]
    )
    hits = correct(encoder, head, images, labels, batch_size)
    assert hits.dtype == bool
    np.testing.assert_array_equal(hits, expected)
    assert percent(hits) == pytest.approx(100 * expected.sum() / len(expected))
    from_tensor = correct(encoder, head, images, torch.from_numpy(labels), batch_size)
    np.testing.assert_array_equal(from_tensor, expected)


def test_read_only_arrays_on_disk_are_measured_without_a_warning(
    problem, encoder: TinyEncoder, tmp_path: Path
) -> None:
    head, images = problem.heads["letters"], problem.images["letters"].numpy()
    labels = np.arange(len(images)) % CLASSES["letters"]
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "labels")]
    assert not mapped[1].flags.writeable
    expected = correct(encoder, head, images, labels)
    np.testing.assert_array_equal(correct(encoder, head, *mapped, batch_size=10), expected)
    halves = [array[len(array) // 2 :] for array in mapped]
    np.testing.assert_array_equal(correct(encoder, head, *halves), expected[len(expected) // 2 :])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((37, 1), dtype=int), "labels of shape [37, 1]: 37 images need [37]"),
        (np.zeros(38, dtype=int), "labels of shape [38]: 37 images need [37]"),
        (torch.zeros(36, dtype=torch.uint8), "labels of shape [36]: 37 images need [37]"),
        (np.zeros(37), "labels are float64: must be integers"),
        (torch.zeros(37).bfloat16(), "labels are float32: must be integers"),
        (np.zeros(37, dtype=bool), "labels are bool: must be integers"),
        (np.array(["cat"] * 37), "labels are <U3: must be integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    problem, encoder: TinyEncoder, labels: np.ndarray | torch.Tensor, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        correct(encoder, problem.heads["digits"], problem.images["digits"], labels)
    assert message in str(caught.value)
    assert "1 fault" in str(caught.value)


def test_all_faults_of_an_evaluation_are_listed(problem, encoder: TinyEncoder) -> None:
    images = problem.images["digits"]
    with pytest.raises(InputError) as caught:
        correct(encoder, problem.heads["digits"], images, np.zeros((1, 1)), batch_size=0)
    message = str(caught.value)
    assert "3 faults" in message
    with pytest.raises(InputError, match="0 images"):
        correct(encoder, problem.heads["digits"], images[:0], np.zeros(0, dtype=np.int64))
    for part in ("labels of shape [1, 1]", "labels are float64", "batch_size = 0"):
        assert part in message


@pytest.mark.gpu
def test_labels_may_be_on_a_gpu(problem, encoder: TinyEncoder) -> None:
    head, images = problem.heads["letters"], problem.images["letters"]
    labels = torch.arange(len(images)) % CLASSES["letters"]
    expected = correct(encoder, head, images, labels)
    np.testing.assert_array_equal(correct(encoder, head, images, labels.to("cuda")), expected)


def test_percent_and_average_are_plain_means() -> None:
    assert percent(np.array([True, False, True, True])) == 75.0
    assert percent(np.array([False])) == 0.0
    accuracy = {"digits": 91.5, "letters": 40.0, "signs": 70.0}
    assert with_average(accuracy) == {**accuracy, "average": pytest.approx(np.mean([91.5, 40, 70]))}


def test_a_table_has_six_digits_and_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    write_csv(path, [{"step": 1, "loss": 1 / 3, "accuracy": None}, {"step": 2, "loss": 2.0}])
    assert path.read_bytes() == b"step,loss,accuracy\n1,0.333333,\n2,2,\n"


def test_rows_survive_a_kill_and_later_ones_are_replaced(tmp_path: Path) -> None:
    rows = ResumableRows(tmp_path, "curve")
    for step in range(1, 6):
        rows.append({"step": step, "loss": step / 3})
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    resumed = ResumableRows(tmp_path, "curve")
    for step in range(4, 8):
        resumed.append({"step": step, "loss": -step / 3})
    expected = [(1, 1 / 3), (2, 2 / 3), (3, 1.0), *((s, -s / 3) for s in range(4, 8))]
    assert [(row["step"], row["loss"]) for row in resumed.rows] == expected
    assert ResumableRows(tmp_path, "other").rows == []


def test_rows_without_a_scratch_folder_stay_in_memory(tmp_path: Path) -> None:
    rows = ResumableRows(None, "curve")
    rows.append({"step": 1, "loss": 0.5})
    write_csv(tmp_path / "curve.csv", rows.rows)
    with (tmp_path / "curve.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"step": "1", "loss": "0.5"}]
