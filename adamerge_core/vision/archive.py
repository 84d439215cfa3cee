"""Archives: all images of a data set as they were fetched, in one zip file."""

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError

SPLITS = ("pretrain", "train", "val", "test")
"""What a data set's images are dealt to; pretrain only where it is asked for."""

_NAMES = "classes.json"


@dataclass(frozen=True)
class ArchivedImage:
    """One encoded image of a data set."""

    split: str
    label: int
    suffix: str
    """Of a file of its format, as ".png"."""
    content: bytes
    name: str
    """What the user knows it by: the path of its file, from the user's folder or list of files."""


@dataclass(frozen=True)
class DatasetImages:
    """The images of a data set, to be read once."""

    classes: Sequence[str]
    """In the order of the labels."""
    templates: Sequence[str]
    """Prompts of the zero-shot head, with {} for the class name."""
    count: int
    """How many images there are."""
    images: Iterable[ArchivedImage]


@dataclass(frozen=True)
class Entry:
    """An image's place in an open archive."""

    split: str
    label: int
    name: str
    """What the user knows it by."""
    member: zipfile.ZipInfo


@dataclass(frozen=True)
class Archive:
    """An archive open for reading."""

    path: Path
    file: zipfile.ZipFile
    classes: list[str]
    templates: list[str]

    def entries(self) -> Iterator[Entry]:
        """Yield the places of all images, in the order in which they were written."""
        for member in self.file.infolist():
            if member.filename != _NAMES:
                split, label, _ = member.filename.split("/")
                yield Entry(split, int(label), member.comment.decode(errors="replace"), member)

    def read(self, entry: Entry) -> bytes:
        """Read an encoded image. Raises InputError where the archive is damaged."""
        try:
            return self.file.read(entry.member)
        except zipfile.BadZipFile as error:
            raise _not_whole(self.path, error) from error


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Yield an archive open for reading. Raises InputError where it is missing or damaged."""
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise _not_whole(path, error) from error
    with file:
        names = json.loads(file.read(_NAMES))
        yield Archive(path, file, names["classes"], names["templates"])


def _not_whole(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a whole zip file ({error}); make it again")


def write_archive(
    path: Path, data: DatasetImages, progress: Callable[[int, int, str], None] | None = None
) -> None:
    """Write a data set to one zip file: classes.json and <split>/<label>/<index><suffix>.

    One image is in memory at a time. The bytes depend on `data` alone: members carry no time and
    are stored as they are, each with the image's name as its comment.
    progress: is told after each image (images done, all images, "images").
    """
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        names = {"classes": list(data.classes), "templates": list(data.templates)}
        archive.writestr(zipfile.ZipInfo(_NAMES), json.dumps(names, indent=1))
        for index, image in enumerate(data.images):
            member = zipfile.ZipInfo(f"{image.split}/{image.label:04d}/{index:06d}{image.suffix}")
            member.comment = image.name.encode(errors="surrogateescape")
            archive.writestr(member, image.content)
            if progress:
                progress(index + 1, data.count, "images")


def encode(pixels: np.ndarray) -> bytes:
    """Encode pixels uint8 [H, W, 3] as PNG, lightly compressed."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
