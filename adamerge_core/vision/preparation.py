"""Preparing a data set: each image of its archive decoded, one array a split.

Nothing here imports torch.
"""

import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.vision.archive import open_archive
from adamerge_core.vision.decoding import Decoded, check_size, decode
from adamerge_core.vision.images import save_array


@dataclass(frozen=True)
class Prepared:
    """What became of a data set's images."""

    counts: dict[str, int]
    """Prepared images by split."""
    skipped: list[str]
    """Images that cannot be read, a line each: the user's name of it, its place, and why."""
    changes: dict[str, int] = field(default_factory=dict)
    """By `Decoded.changes` the number of images that it holds for."""


def prepare_archive(
    path: str | os.PathLike[str],
    size: int,
    files_of: Callable[[str], tuple[Path, Path]],
    unreadable: Literal["fail", "skip"] = "fail",
    progress: Callable[[int, int, str], None] | None = None,
    needed: Sequence[str] = ("train", "val", "test"),
) -> Prepared:
    """Write an archive's images, decoded and resized, to two .npy files a split.

    files_of: split -> where its images uint8 [N, size, size, 3] and its labels int64 [N] go, in the
    order of the archive. In memory are one image at a time, the labels and the archive's list of
    members (about 1 KB an image). A file appears when all are written.
    unreadable: `skip` leaves out images that cannot be decoded, `fail` raises.
    progress: is told after each image (images done, all images, "images").
    needed: the splits that must have images.
    Raises InputError listing the images that cannot be read, or the splits that are left without
    any.
    """
    check_size(size)
    if unreadable not in ("fail", "skip"):
        raise InputError(f"unreadable = {unreadable!r}: must be fail or skip")
    with open_archive(path) as archive, ExitStack() as files:
        found = Counter(entry.split for entry in archive.entries())
        _check_splits(path, needed, found, "it holds no image of this split; make it again")
        splits = {split: _Split(files, *files_of(split), size) for split in found}
        faults = []
        changes: Counter[str] = Counter()
        for done, entry in enumerate(archive.entries(), start=1):
            content = archive.read(entry)
            name = f"{entry.name} (split {entry.split}, class {archive.classes[entry.label]})"
            try:
                image = _decoded(content, size, name)
            except InputError as error:
                faults.append(str(error))
            else:
                splits[entry.split].add(image.pixels, entry.label)
                changes.update(image.changes)
            if progress:
                progress(done, found.total(), "images")
        if faults and unreadable == "fail":
            subject = f"{path}: images that cannot be read; remove, replace or skip them"
            raise InputError.listing(subject, faults, shown=20)
        counts = {split: len(each.labels) for split, each in splits.items()}
        _check_splits(path, needed, counts, "no image of this split can be read; replace them")
        for each in splits.values():
            each.finish()
    return Prepared(counts, faults, dict(changes))


def _decoded(content: bytes, size: int, name: str) -> Decoded:
    """Decode an image; its name is in each error."""
    try:
        return decode(content, size)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except MemoryError as error:  # says nothing about the image, which is not skipped
        error.add_note(f"at the image {name}")
        raise


def _check_splits(
    path: str | os.PathLike[str], needed: Sequence[str], counts: Mapping[str, int], fault: str
) -> None:
    empty = [split for split in dict.fromkeys((*needed, *counts)) if not counts.get(split)]
    if empty:
        raise InputError.listing(str(path), [f"split {split}: {fault}" for split in empty])


class _Split:
    """The files of one split, growing image by image."""

    def __init__(self, files: ExitStack, images: Path, labels: Path, size: int) -> None:
        self._shape = (size, size, 3)
        self._labels_path = labels
        temporary = files.enter_context(atomic_write(images))
        self._file = files.enter_context(temporary.open("wb"))
        self.labels: list[int] = []
        self._file.write(self._header())

    def add(self, pixels: np.ndarray, label: int) -> None:
        self._file.write(pixels.tobytes())
        self.labels.append(label)

    def finish(self) -> None:
        """Say in the file how many images it holds, and write the labels."""
        self._file.seek(0)
        self._file.write(self._header())
        save_array(self._labels_path, np.array(self.labels, dtype=np.int64))

    def _header(self) -> bytes:
        """Of equal length at all times: numpy leaves room for the first dimension to grow."""
        header = io.BytesIO()
        shape = (len(self.labels), *self._shape)
        form = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, form)
        return header.getvalue()
