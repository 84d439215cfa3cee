"""The source `local_copy`: torchvision's folders, written here in the authors' formats."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from field_data_sets import idx
from PIL import Image
from scipy.io import savemat

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets import published
from adamerge_core.vision.datasets.published import PublishedDataset
from adamerge_core.vision.datasets.registry import read_source
from flows.data import import_copy

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def few(monkeypatch: pytest.MonkeyPatch, name: str, train: int, test: int, **values: Any) -> None:
    """Make the catalogue say fewer images of a data set."""
    real = published.published_dataset(name)
    made = PublishedDataset(**{**vars(real), "images": {"train": train, "test": test}, **values})
    for module in ("published_source", "local_copy"):
        place = f"adamerge_core.vision.datasets.{module}.published_dataset"
        monkeypatch.setattr(place, lambda name: made)


def read(name: str, path: Path, **values: Any) -> dict[str, list[tuple[int, bytes]]]:
    entry = {"source": "local_copy", "dataset": name, "path": str(path), **values}
    found: dict[str, list[tuple[int, bytes]]] = {}
    for image in read_source("x", entry).images("x").images:
        found.setdefault(image.split, []).append((image.label, image.content))
    return found


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def write_mnist(folder: Path) -> Path:
    """Write 20 and 10 images in the form of MNIST's files; return their folder."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, first, count in (("train", 0, 20), ("t10k", 20, 10)):
        gray = PIXELS[first : first + count, :28, :28, 0]
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(np.ascontiguousarray(gray)))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
    return raw


def test_mnist_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, "mnist", 20, 10)
    raw = write_mnist(tmp_path)
    found = read("mnist", tmp_path, val=4)
    assert {split: len(images) for split, images in found.items()} == {
        "train": 16,
        "val": 4,
        "test": 10,
    }
    expected = {PIXELS[20 + i, :28, :28, 0].tobytes(): i % 10 for i in range(10)}
    seen = {pixels(content)[..., 0].tobytes(): label for label, content in found["test"]}
    assert seen == expected
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(10, np.uint8)))
    with pytest.raises(InputError, match="split test: has 1 labels, 0 to 0"):
        read("mnist", tmp_path)
    with pytest.raises(InputError, match=r"cannot read MNIST/raw in .*Dataset not found"):
        read("mnist", tmp_path / "elsewhere")


def test_svhn_files_have_ten_for_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)  # of the whole files
    few(monkeypatch, "svhn", 20, 10)
    for split, count in (("train", 20), ("test", 10)):
        content = {
            "X": np.transpose(PIXELS[:count], (1, 2, 3, 0)),
            "y": (np.arange(count) % 10 + 1).astype(np.uint8)[:, None],
        }
        savemat(tmp_path / f"{split}_32x32.mat", content)
    found = read("svhn", tmp_path, val=2)
    seen = {pixels(content).tobytes(): label for label, content in found["test"]}
    assert seen == {PIXELS[i].tobytes(): (i + 1) % 10 for i in range(10)}


def test_dtd_trains_on_train_and_val_and_keeps_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, "dtd", 4, 2, classes=("banded", "woven"))
    folder = tmp_path / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for index, split in enumerate(("train", "val", "test")):
        names = [f"{name}/{name}_{index}.jpg" for name in ("banded", "woven")]
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(names))
        for name in names:
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[index]).save(path)
    found = read("dtd", tmp_path, val=1)
    stored = {path.read_bytes() for path in folder.rglob("*_[01].jpg")}
    assert {content for _, content in [*found["train"], *found["val"]]} == stored
    assert sorted(label for label, _ in found["test"]) == [0, 1]


def test_what_has_no_splits_there_is_refused_with_the_reason() -> None:
    for name, reason in {
        "eurosat": "drawn without a seed",
        "sun397": "Partitions.zip",
        "resisc45": "no class for it",
        "fer2013": "another label order",
        "emnist_letters": "start at 1",
        "fer2013_tall": "head_FER2013Val.pt",
    }.items():
        with pytest.raises(InputError, match=reason):
            read_source("x", {"source": "local_copy", "dataset": name, "path": "x"})
    digits = read_source("x", {"source": "local_copy", "dataset": "emnist_digits", "path": "x"})
    assert digits.files()[1] == Path("x/EMNIST/raw")


def test_pickles_of_cifar_are_read_by_torchvision_alone(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(InputError, match="not found or corrupted"):  # by their digests, unread
        read("cifar10", tmp_path)


def test_a_copy_is_looked_through_for_a_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few(monkeypatch, "mnist", 20, 10)
    raw = write_mnist(tmp_path)
    assert import_copy("mnist", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "mnist: 30 images of 10 classes: right" in said
    entries = yaml.safe_load(said.split("suite:")[1])
    assert read_source("mnist", entries["mnist"]).splits() == ("train", "val", "test")
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(9, dtype=np.uint8)))
    with pytest.raises(InputError, match="split test: has 9 images"):
        import_copy("mnist", str(tmp_path))
    with pytest.raises(InputError, match="elsewhere/MNIST/raw does not exist"):
        import_copy("mnist", str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sun397", "splits"),
        ("eurosat", "drawn without a seed"),
        ("resisc45", "torchvision"),
        ("fer2013_tall", "another order"),
    ],
)
def test_trap_8_copies_that_are_not_the_fields_data_are_refused(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"(?s)dataset = '{name}'.*{reason}"):
        read_source("x", {"source": "local_copy", "dataset": name, "path": "/data"})


def test_trap_8_counts_are_the_fields_and_not_the_original_publications() -> None:
    counts = {
        name: published.published_dataset(name).images for name in ("gtsrb", "dtd", "eurosat")
    }
    assert counts["gtsrb"] == {"train": 26_640, "test": 12_630}  # not the 39,209 of its authors
    assert counts["dtd"] == {"train": 3_760, "test": 1_880}
    assert counts["eurosat"]["test"] == 2_700
