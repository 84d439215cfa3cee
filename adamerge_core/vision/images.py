"""Prepared images: arrays in .npy files, memory-mapped. Nothing here imports torch."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular


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
        arrays = cls(open_images(images), open_labels(labels))
        if len(arrays.images) != len(arrays.labels):
            raise InputError(
                f"{images}: {len(arrays.images)} images and {len(arrays.labels)} in {labels}; "
                "prepare the task again"
            )
        return arrays


def open_images(path: str | os.PathLike[str], dimensions: int = 4) -> np.ndarray:
    """Open prepared images uint8 [..., H, W, 3], memory-mapped read-only.

    dimensions: how many there are in all. Raises InputError when the file is missing, no regular
    file or broken, holds another dtype or shape, or no image.
    """
    array = _mapped(path, np.dtype(np.uint8), dimensions)
    fault = pixels_fault(array, dimensions)
    if fault:
        raise InputError(f"{path}: {fault}; make it again")
    return array


def open_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Open labels int64 [N], memory-mapped read-only.

    Raises InputError when the file is missing, no regular file or broken, holds another dtype or
    shape, none or one below 0.
    """
    array = _mapped(path, np.dtype(np.int64), 1)
    if not array.size or array.min() < 0:
        found = f"label {array.min()}" if array.size else "no label"
        raise InputError(f"{path}: {found}; labels are integers of at least 0; make it again")
    return array


def pixels_fault(array: Any, dimensions: int) -> str | None:
    """Say why an array is no images uint8 [..., H, W, 3] of so many dimensions, if it is none."""
    if not isinstance(array, np.ndarray):
        return f"is {type(array).__name__}, but a numpy array is needed"
    if array.dtype != np.uint8:
        return f"dtype {array.dtype}, but uint8 is needed"
    if array.ndim != dimensions:
        return f"shape {list(array.shape)}, but {dimensions} dimensions are needed"
    if array.shape[-1] != 3:
        return f"shape {list(array.shape)}, but 3 channels are needed, the last dimension"
    if not array.size:
        return f"shape {list(array.shape)}, which holds no image"
    return None


def _mapped(path: str | os.PathLike[str], dtype: np.dtype[Any], dimensions: int) -> np.ndarray:
    """Map a .npy file that is as large as its header says. Objects (pickles) are never read."""
    with open_regular(path, "array") as file:
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version} of the format; np.save writes (1, 0)")
            shape, by_column, found = np.lib.format.read_array_header_1_0(file)
            if any(type(side) is not int or side < 0 for side in shape):
                raise ValueError(f"shape {shape}; its sides must be integers of at least 0")
        except MemoryError:
            raise
        except Exception as error:  # numpy raises many types for a broken header
            raise InputError(
                f"{path}: not a whole .npy file ({_one_line(error)}); make it again"
            ) from error
        if found != dtype or len(shape) != dimensions:
            raise InputError(
                f"{path}: {found} of shape {list(shape)}, but {dimensions} dimensions of {dtype} "
                "are needed; make it again"
            )
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        needed = math.prod(shape) * dtype.itemsize
        if by_column or needed != size - start:
            raise InputError(
                f"{path}: not a whole .npy file (its header says {needed} bytes of shape "
                f"{list(shape)}{', by columns' * by_column}, it holds {size - start}); make it "
                "again"
            )
        if not needed:
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r", start, shape)


def _one_line(error: Exception) -> str:
    return " ".join(ascii(str(error)).strip("'\"").split())[:200]


def save_array(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write a .npy file, whole or not at all. Raises InputError for an array of objects."""
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise InputError(f"{path}: a numpy array of numbers is needed, not of {type(array)}")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
