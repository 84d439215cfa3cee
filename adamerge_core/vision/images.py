"""Prepared images: arrays in .npy files, memory-mapped. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError


@dataclass(frozen=True)
class LabeledImages:
    """Images of one split of a task with their classes."""

    images: np.ndarray
    """uint8 [N, H, W, 3], memory-mapped."""
    labels: np.ndarray
    """int64 [N]."""

    @classmethod
    def open(cls, images: Path, labels: Path) -> "LabeledImages":
        """Open a split's files. Raises InputError when one is missing, broken or misfits."""
        arrays = cls(open_array(images, 4), open_array(labels, 1))
        if len(arrays.images) != len(arrays.labels):
            raise InputError(
                f"{images}: {len(arrays.images)} images and {len(arrays.labels)} in {labels}; "
                "prepare the task again"
            )
        return arrays


def open_array(path: Path, dimensions: int) -> np.ndarray:
    """Open a .npy file, memory-mapped read-only.

    Raises InputError when it is missing, broken or has another number of dimensions.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make it with `dvc repro`") from error
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); make it again") from error
    if array.ndim != dimensions:
        raise InputError(
            f"{path}: shape {list(array.shape)}, but {dimensions} dimensions are needed"
        )
    return array


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
