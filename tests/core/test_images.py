"""Arrays of prepared images: what is read, what is refused, by which name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adamerge_core.errors import InputError
from adamerge_core.vision.images import LabeledImages, open_images, save_array


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_arrays_are_read_back_memory_mapped_and_read_only(tmp_path: Path) -> None:
    images, labels = noise(0, 5, 4, 4, 3), np.arange(5)
    save_array(tmp_path / "images.npy", images)
    save_array(tmp_path / "labels.npy", labels)
    data = LabeledImages.open(tmp_path / "images.npy", tmp_path / "labels.npy")
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.labels, labels)


@pytest.mark.parametrize("fault", ["missing", "empty", "cut header", "cut", "text", "pickle"])
def test_an_array_that_is_none_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "images.npy"
    save_array(path, noise(0, 5, 4, 4, 3))
    whole = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(
            {"empty": b"", "cut header": whole[:40], "cut": whole[:-1], "text": b"text" * 40}[fault]
        )
    with pytest.raises(InputError) as caught:
        open_images(path)
    assert str(path) in str(caught.value)


def test_an_array_of_another_form_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    save_array(path, noise(0, 5, 4))
    with pytest.raises(
        InputError, match=r"uint8 of shape \[5, 4\], but 4 dimensions of uint8"
    ) as caught:
        open_images(path)
    assert str(path) in str(caught.value)


def test_as_many_labels_as_images_are_needed(tmp_path: Path) -> None:
    images, labels = tmp_path / "images.npy", tmp_path / "labels.npy"
    save_array(images, noise(0, 5, 4, 4, 3))
    save_array(labels, np.arange(6))
    with pytest.raises(InputError, match=r"5 images and 6 in") as caught:
        LabeledImages.open(images, labels)
    assert str(images) in str(caught.value)
    assert str(labels) in str(caught.value)
