"""Preparing a data set: each image of its archive decoded and resized, one array a split.

Nothing here imports torch.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.vision.archive import open_archive
from adamerge_core.vision.images import save_array

_NEEDED = ("train", "val", "test")


@dataclass(frozen=True)
class Prepared:
    """What became of a data set's images."""

    counts: dict[str, int]
    """Prepared images by split."""
    skipped: list[str]
    """Images that cannot be read, a line each: the user's name of it, its place, and why."""


def prepare_archive(
    path: Path,
    size: int,
    files_of: Callable[[str], tuple[Path, Path]],
    unreadable: Literal["fail", "skip"] = "fail",
    progress: Callable[[int, int, str], None] | None = None,
) -> Prepared:
    """Write an archive's images, decoded and resized, to two .npy files a split.

    files_of: split -> where its images uint8 [N, size, size, 3] and its labels int64 [N] go, in the
    order of the archive. In memory are one image at a time, the labels and the archive's list of
    members (about 1 KB an image). A file appears when all are written.
    unreadable: `skip` leaves out images that cannot be decoded, `fail` raises.
    progress: is told after each image (images done, all images, "images").
    Raises InputError listing the images that cannot be read, or the splits train, val and test that
    are left without any.
    """
    with open_archive(path) as archive, ExitStack() as files:
        found = Counter(entry.split for entry in archive.entries())
        _check_splits(path, found, "it holds no image of this split; make it again")
        splits = {split: _Split(files, *files_of(split), size) for split in found}
        faults = []
        for done, entry in enumerate(archive.entries(), start=1):
            content = archive.read(entry)
            try:
                pixels = decode(content, size)
            except MemoryError:  # says nothing about the image
                raise
            except Exception as error:  # PIL raises many types for a broken file
                place = f"split {entry.split}, class {archive.classes[entry.label]}"
                faults.append(f"{entry.name} ({place}): {error}")
            else:
                splits[entry.split].add(pixels, entry.label)
            if progress:
                progress(done, found.total(), "images")
        if faults and unreadable == "fail":
            subject = f"{path}: images that cannot be read; remove, replace or skip them"
            raise InputError.listing(subject, faults, shown=20)
        counts = {split: len(each.labels) for split, each in splits.items()}
        _check_splits(path, counts, "no image of this split can be read; replace them")
        for each in splits.values():
            each.finish()
    return Prepared(counts, faults)


def _check_splits(path: Path, counts: Mapping[str, int], fault: str) -> None:
    empty = [split for split in dict.fromkeys((*_NEEDED, *counts)) if not counts.get(split)]
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


def decode(content: bytes, size: int) -> np.ndarray:
    """Decode an image to uint8 [size, size, 3].

    Its shorter side is resized to `size` pixels, then it is cropped to the middle.
    Raises what PIL raises for a broken image, which may be of any type.
    """
    with Image.open(io.BytesIO(content)) as file:
        image = _eight_bits(file).convert("RGB")
    width, height = image.size
    if (width, height) != (size, size):
        scale = size / min(width, height)
        wide, high = max(size, round(width * scale)), max(size, round(height * scale))
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = (wide - size) // 2, (high - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray values to 8 bits; Pillow's own conversion clips them to white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
