"""Archives: all images of a data set as they were fetched, in one zip file."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular
from adamerge_core.vision.decoding import MAX_FILE_BYTES
from adamerge_core.vision.images import pixels_fault
from adamerge_core.vision.names import class_name_faults, printable

SPLITS = ("pretrain", "train", "val", "test")
"""What a data set's images are dealt to; pretrain only where it is asked for."""

_NAMES = "classes.json"

_SUFFIX = r"\.[a-z0-9]{1,8}"
_MEMBER = re.compile(rf"({'|'.join(SPLITS)})/([0-9]{{4,9}})/[0-9]{{6,12}}{_SUFFIX}")

_SHOWN = 20  # lines of a long list of faults


@dataclass(frozen=True)
class ArchivedImage:
    """One encoded image of a data set."""

    split: str
    label: int
    suffix: str
    """Of a file of its format, as ".png"."""
    content: bytes
    name: str
    """What the user knows it by, printable: the path of its file, from the user's folder or list of
    files."""


@dataclass(frozen=True)
class Remark:
    """Files of the user's that are passed over, or taken in a way that may surprise."""

    what: str
    """As "hidden files and folders are left out"."""
    names: Sequence[str]
    """Printable paths, from the user's folder."""

    def __str__(self) -> str:
        named = ", ".join(self.names[:5])
        more = f" and {len(self.names) - 5} more" if len(self.names) > 5 else ""
        return f"{len(self.names)} {self.what}: {named}{more}"


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
    """Raises InputError at its end listing the files that cannot be read."""
    remarks: Sequence[Remark] = ()
    """What of the user's files is left out or may surprise."""


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
    """An archive open for reading, all of whose members are as `write_archive` makes them."""

    path: Path
    file: zipfile.ZipFile
    classes: list[str]
    templates: list[str]

    def entries(self) -> Iterator[Entry]:
        """Yield the places of all images, in the order in which they were written."""
        for member in self.file.infolist():
            if member.filename != _NAMES:
                split, label, _ = member.filename.split("/")
                yield Entry(split, int(label), member.comment.decode(), member)

    def read(self, entry: Entry) -> bytes:
        """Read an encoded image. Raises InputError, with its name, where the archive is damaged."""
        try:
            return self.file.read(entry.member)
        except MemoryError:
            raise
        except Exception as error:  # zipfile raises many types for a damaged file
            raise _not_whole(self.path, f"at the image {entry.name}") from error


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """Yield an archive open for reading.

    Raises InputError, before anything is read out of it, where it is missing, no regular file,
    damaged or not made by `write_archive`: members that are compressed, that have more bytes than
    MAX_FILE_BYTES or together more than the file, or that name no split or class.
    """
    with open_regular(path, "archive") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            file = zipfile.ZipFile(stream)
        except MemoryError:
            raise
        except Exception as error:  # zipfile raises many types for a damaged file
            raise _not_whole(Path(path), printable(str(error))) from error
        with file:
            faults = _size_faults(file.infolist(), size)
            archive = Archive(Path(path), file, [], [])
            if not faults:
                archive = _with_names(archive)
                faults = _name_faults(archive)
            if faults:
                subject = f"{path}: not an archive of images; make it again (dvc repro --force)"
                raise InputError.listing(subject, faults, shown=_SHOWN)
            yield archive


def _size_faults(members: Iterable[zipfile.ZipInfo], size: int) -> list[str]:
    """Find members that are compressed or too large, and sizes that cannot be true."""
    faults, total = [], 0
    for member in members:
        name = _name_of(member)
        total += member.file_size
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            faults.append(
                f"{name}: {member.compress_size} bytes that become {member.file_size}; must be "
                "stored, not compressed"
            )
        elif member.flag_bits & 1:
            faults.append(f"{name}: is encrypted; must be stored as it is")
        elif member.file_size > MAX_FILE_BYTES:
            faults.append(
                f"{name}: has {member.file_size} bytes; must have at most {MAX_FILE_BYTES}"
            )
    if total > size:
        faults.append(f"its members have {total} bytes, but the file {size}")
    return faults


def _with_names(archive: Archive) -> Archive:
    """Read class names and templates. Raises InputError where the archive has none."""
    try:
        names = json.loads(archive.file.read(_NAMES))
        lists = [names["classes"], names["templates"]]
    except MemoryError:
        raise
    except Exception as error:  # of zipfile, json and what JSON holds
        raise _not_whole(archive.path, f"{_NAMES}: {printable(str(error))}") from error
    if not all(isinstance(each, list) and all(isinstance(t, str) for t in each) for each in lists):
        raise _not_whole(archive.path, f"{_NAMES}: must hold two lists of texts")
    return replace(archive, classes=lists[0], templates=lists[1])


def _name_faults(archive: Archive) -> list[str]:
    faults = class_name_faults(archive.classes)
    seen = set()
    for member in archive.file.infolist():
        if member.filename in seen:
            faults.append(f"{_name_of(member)}: stands twice")
        seen.add(member.filename)
        if member.filename == _NAMES:
            continue
        found = _MEMBER.fullmatch(member.filename)
        if not found:
            faults.append(f"{_name_of(member)}: must be <split>/<label>/<index><suffix>")
        elif int(found[2]) >= len(archive.classes):
            faults.append(f"{_name_of(member)}: there are {len(archive.classes)} classes")
        elif not _is_text(member.comment):
            faults.append(f"{_name_of(member)}: its name is not UTF-8")
    return faults


def _name_of(member: zipfile.ZipInfo) -> str:
    """Name a member for a message: by the user's name of the image, if it has one."""
    return printable(member.comment.decode(errors="replace") or member.filename)[:300]


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_whole(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: not a whole zip file ({reason}); make it again")


def write_archive(
    path: str | os.PathLike[str],
    data: DatasetImages,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write a data set to one zip file: classes.json and <split>/<label>/<index><suffix>.

    One image is in memory at a time. The bytes depend on `data` alone: members carry no time and
    are stored as they are, each with the image's name as its comment.
    progress: is told after each image (images done, all images, "images").
    Raises InputError for class names, and for images, that an archive cannot hold.
    """
    faults = class_name_faults(data.classes)
    if faults:
        raise InputError.listing("class names", faults, shown=_SHOWN)
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        names = {"classes": list(data.classes), "templates": list(data.templates)}
        archive.writestr(zipfile.ZipInfo(_NAMES), json.dumps(names, indent=1))
        for index, image in enumerate(data.images):
            archive.writestr(_member(image, index, len(data.classes)), image.content)
            if progress:
                progress(index + 1, data.count, "images")


def _member(image: ArchivedImage, index: int, classes: int) -> zipfile.ZipInfo:
    """Make an image's place in an archive. Raises InputError for one that it cannot hold."""
    faults = []
    if image.split not in SPLITS:
        faults.append(f"split {image.split!r}: must be one of {', '.join(SPLITS)}")
    if not isinstance(image.label, int | np.integer) or not 0 <= image.label < classes:
        faults.append(f"label {image.label!r}: must be an integer of 0 to {classes - 1}")
    if not re.fullmatch(_SUFFIX, image.suffix):
        faults.append(f"suffix {image.suffix!r}: must be as .png, in small letters")
    if len(image.content) > MAX_FILE_BYTES:
        faults.append(f"{len(image.content)} bytes: must be at most {MAX_FILE_BYTES}")
    comment = printable(image.name).encode()
    if len(comment) > 0xFFFF:
        faults.append(f"its name has {len(comment)} bytes: must have at most {0xFFFF}")
    if faults:
        raise InputError.listing(f"image {printable(image.name)[:300]}", faults)
    member = zipfile.ZipInfo(f"{image.split}/{image.label:04d}/{index:06d}{image.suffix}")
    member.comment = comment
    return member


def encode(pixels: np.ndarray) -> bytes:
    """Encode pixels uint8 [H, W, 3] as PNG, lightly compressed. Raises InputError for others."""
    fault = pixels_fault(pixels, 3)
    if fault:
        raise InputError(f"pixels: {fault}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
