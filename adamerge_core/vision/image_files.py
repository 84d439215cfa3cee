"""A user's folder of images, without a split: found, labeled by its class folders, decoded.

Nothing here imports torch.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.vision.archive import SPLITS, Remark
from adamerge_core.vision.class_lists import ClassList
from adamerge_core.vision.datasets.labeled_files import SHOWN, user_name
from adamerge_core.vision.datasets.user_files import is_hidden, is_image, read_file
from adamerge_core.vision.decoding import IMAGE_SUFFIXES, MAX_FILE_BYTES, decode
from adamerge_core.vision.images import open_images
from adamerge_core.vision.names import printable

Progress = Callable[[int, int, str], None]
"""(done, of how many, what is done)."""


@dataclass(frozen=True)
class ImageFiles:
    """The images of a folder."""

    folder: Path
    files: tuple[Path, ...]
    """Sorted by class folder, then by path."""
    class_folders: tuple[str | None, ...]
    """By file the folder that it lies in, directly below `folder`; None for one beside these."""
    remarks: tuple[Remark, ...] = ()
    """What is left out."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the folders that hold images, sorted."""
        return tuple(sorted({name for name in self.class_folders if name is not None}))

    @property
    def identity(self) -> str:
        """A hash of the files' names, sizes and times, to tell a folder from a changed one."""
        digest = hashlib.sha256()
        for file in self.files:
            about = file.stat() if file.exists() else None  # as of a link to nothing
            facts = (about.st_size, about.st_mtime_ns) if about else ()
            digest.update(f"{user_name(self.folder, file)}\0{facts}\n".encode())
        return digest.hexdigest()[:16]

    def choose(self, rows: Sequence[int]) -> "ImageFiles":
        """Some of the images, by their numbers."""
        files, folders = self.files, self.class_folders
        return ImageFiles(
            self.folder, tuple(files[r] for r in rows), tuple(folders[r] for r in rows)
        )

    def labels(self, classes: ClassList) -> np.ndarray | None:
        """Label each image by its class folder: [N] int64; None where no folder is a class's.

        Raises InputError listing the folders that are none of the classes', where others are.
        """
        known = {name: classes.label(name) for name in self.classes}
        strange = [printable(name) for name, label in known.items() if label is None]
        beside = sum(name is None for name in self.class_folders)
        if len(strange) == len(known):
            return None
        faults = [
            f"folder {name!r}: is no class of {classes.source}, whose folders are called "
            f"{', '.join(classes.folders[:5])}{', …' if len(classes.folders) > 5 else ''}"
            for name in strange
        ]
        if beside:
            faults.append(f"{beside} images outside of a class folder; move them into one")
        if faults:
            raise InputError.listing(f"images {printable(str(self.folder))}", faults, SHOWN)
        return np.array([known[str(name)] for name in self.class_folders], dtype=np.int64)


def find_images(folder: str | os.PathLike[str]) -> ImageFiles:
    """Find the images <folder>/<class>/…/<file>, or <folder>/<file>, by their suffixes.

    Raises InputError when there is no such folder or no image in it, and for a folder of splits.
    """
    root = Path(folder)
    subject = f"images {printable(str(root))}"
    if not root.is_dir():
        raise InputError(f"{subject}: no such folder; give one that holds <class>/<image>")
    everything: list[tuple[str | None, Path]] = []
    for entry in _entries(root, subject):
        if entry.is_dir():
            everything += [(entry.name, file) for file in _below(entry, subject)]
        else:
            everything.append((None, entry))
    found = [pair for pair in everything if is_image(pair[1])]
    names = {name for name, _ in found if name is not None}
    if names and names <= set(SPLITS):
        raise InputError(
            f"{subject}: holds the splits {', '.join(sorted(names))}; give one of them, as "
            f"{printable(str(root / min(names)))}"
        )
    if not found:
        raise InputError(f"{subject}: holds no image (of {', '.join(IMAGE_SUFFIXES)})")
    found.sort(key=lambda pair: (pair[0] or "", pair[1]))
    left_out = [user_name(root, file) for _, file in everything if not is_image(file)]
    what = "files are no images by their suffixes and are left out"
    remarks = (Remark(what, left_out),) if left_out else ()
    return ImageFiles(
        root, tuple(file for _, file in found), tuple(name for name, _ in found), remarks
    )


def _entries(folder: Path, subject: str) -> list[Path]:
    try:
        return [entry for entry in sorted(folder.iterdir()) if not is_hidden(entry.name)]
    except OSError as error:
        raise InputError(f"{subject}: cannot be read ({error.strerror})") from error


def _below(folder: Path, subject: str) -> Iterator[Path]:
    """Go through all files below a class folder; links to folders are followed at its top alone."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{subject}: {error.filename} cannot be read ({error.strerror})")

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(place) / name for name in sorted(names) if not is_hidden(name))


def decoded(
    images: ImageFiles, size: int, batch: int, progress: Progress
) -> Iterator[tuple[slice, np.ndarray]]:
    """Decode images in batches: (their numbers, uint8 [n, size, size, 3]).

    Raises InputError at its end listing all that cannot be decoded.
    """
    faults: list[str] = []
    what = f"images of {printable(str(images.folder))} decoded"
    for start in range(0, len(images.files), batch):
        files = images.files[start : start + batch]
        pixels = np.zeros((len(files), size, size, 3), dtype=np.uint8)
        for row, file in enumerate(files):
            name = user_name(images.folder, file)
            try:
                pixels[row] = decode(read_file(file, name, MAX_FILE_BYTES), size).pixels
            except InputError as error:
                text = str(error)
                faults.append(text if text.startswith(name) else f"{name}: {text}")
            progress(start + row + 1, len(images.files), what)
        yield slice(start, start + len(files)), pixels
    if faults:
        subject = f"images {printable(str(images.folder))}, which cannot be read; remove or replace"
        raise InputError.listing(subject, faults, SHOWN)


def decode_into(path: Path, images: ImageFiles, size: int, progress: Progress) -> np.ndarray:
    """Decode a folder's images into a .npy file, and open that: uint8 [N, size, size, 3].

    A file that is there already is opened as it is. Raises InputError listing all images that
    cannot be decoded.
    """
    shape = (len(images.files), size, size, 3)
    if not path.exists():
        with atomic_write(path) as temporary:
            array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            for rows, pixels in decoded(images, size, _BATCH, progress):
                array[rows] = pixels
            array.flush()
    return open_images(path)


_BATCH = 64
