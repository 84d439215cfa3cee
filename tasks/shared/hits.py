"""Which test images a method got right, image by image, in a file. Nothing here imports torch."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError

Hits = Mapping[tuple[str, str], np.ndarray]
"""By protocol and task [N] bool, of the images that the protocol measures on, in their order."""


def write_hits(path: Path, hits: Hits) -> None:
    """Write an .npz file; equal hits give equal bytes."""
    arrays = {"/".join(key): each for key, each in hits.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_hits(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """Read what `write_hits` wrote. Raises InputError where it is damaged or something else."""
    found = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                protocol, _, task = key.partition("/")
                found[protocol, task] = arrays[key]
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: no whole .npz file ({error}); make it anew: dvc repro"
        ) from error
    strange = [key for key, each in found.items() if each.dtype != bool or each.ndim != 1]
    if strange:
        raise InputError.listing(
            f"hits in {path}; make it anew: dvc repro",
            [f"{'/'.join(key)}: must be [N] of bool" for key in strange],
        )
    return found
