"""Rows of a data set's files as the hub keeps them: labels, and the bytes of images.

Two formats: parquet (columns; an image is a struct of bytes and path) and webdataset (tar files, an
image and a label by the same name). Labels are read first and alone, then the images of the rows
that are wanted, one row group or one member at a time. Nothing here imports torch.
"""

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adamerge_core.errors import InputError
from adamerge_core.vision.datasets.published import HubFiles, Labels
from adamerge_core.vision.decoding import MAX_FILE_BYTES

_BATCH = 32  # images that are decoded from a row group at a time

_MAX_LABEL_BYTES = 20  # of a label in a tar file


@dataclass(frozen=True)
class HubTable:
    """The rows of a split: its files, one after the other."""

    hub: HubFiles
    stored: Labels
    """How its labels are stored."""
    classes: int
    files: Sequence[tuple[str, Path]]
    """Each by the user's name of it and where it lies."""

    def labels(self) -> np.ndarray:
        """Read the labels of all rows, as indices of classes: int64 [N].

        Raises InputError for a file that is broken, lacks the column, or holds no whole numbers, or
        for labels that are not as the catalogue says.
        """
        read = _READERS[self.hub.format].labels
        found = [read(name, path, self.hub) for name, path in self.files]
        stored = np.concatenate([np.zeros(0, np.int64), *found])
        return as_classes(stored, self.stored, self.classes, ", ".join(n for n, _ in self.files))

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, bytes, str]]:
        """Yield row, content and name of each row that `wanted`, bool [N], has, in their order.

        Raises InputError for a file that is broken, or a row without an image.
        """
        reader = _READERS[self.hub.format]
        start = 0
        for name, path in self.files:
            count = reader.count(name, path, self.hub)
            rows = wanted[start : start + count]
            for row, content in reader.images(name, path, self.hub, rows) if rows.any() else ():
                yield start + row, content, f"{name} row {row}"
            start += count


def as_classes(stored: np.ndarray, labels: Labels, classes: int, subject: str) -> np.ndarray:
    """Turn stored labels, int64 [N], into indices of classes, of the same shape.

    The base, where the catalogue allows several, is the one that all stored labels fit. Raises
    InputError where none fits, or a class has no row.
    """
    values = stored.copy()
    for old, new in labels.replace.items():
        values[stored == old] = new
    found = np.unique(values)
    for base in labels.bases:
        if len(found) == classes and found[0] == base and found[-1] == base + classes - 1:
            return values - base
    shown = ", ".join(map(str, found[:5])) + (f" ... {found[-1]}" if len(found) > 5 else "")
    bases = " or ".join(f"{base} to {base + classes - 1}" for base in labels.bases)
    raise InputError(
        f"{subject}: has {len(found)} labels ({shown}); the catalogue has {classes} classes, "
        f"stored as {bases}, each with an image: another data set, or another version of it"
    )


# --- parquet ------------------------------------------------------------------------------------


@contextmanager
def _parquet(name: str, path: Path) -> Iterator[Any]:
    """Open a parquet file. Raises InputError for one that is broken, now or while it is read."""
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            yield file
    except (MemoryError, InputError):
        raise
    except Exception as error:  # pyarrow raises many types for a broken file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: not a whole parquet file ({reason}); {_AGAIN}") from error


_AGAIN = "fetch it again: adamerge data download, with the data set's name"


def _column(file: Any, name: str, column: str) -> Any:
    """Give the type of a column. Raises InputError, with those there are, where it is missing."""
    schema = file.schema_arrow
    if column not in schema.names:
        known = ", ".join(schema.names)
        raise InputError(f"{name}: has no column {column!r}; its columns are {known}")
    return schema.field(column).type


def _parquet_labels(name: str, path: Path, hub: HubFiles) -> np.ndarray:
    from pyarrow import types

    column = hub.label
    with _parquet(name, path) as file:
        kind = _column(file, name, column)
        if not (types.is_integer(kind) or types.is_boolean(kind)):
            raise InputError(f"{name}: column {column!r} is of {kind}; must be whole numbers")
        stored = file.read(columns=[column]).column(0)
        if stored.null_count:
            raise InputError(f"{name}: column {column!r} lacks {stored.null_count} labels")
        return stored.to_numpy().astype(np.int64)


def _parquet_count(name: str, path: Path, hub: HubFiles) -> int:
    with _parquet(name, path) as file:
        return int(file.metadata.num_rows)


def _parquet_images(
    name: str, path: Path, hub: HubFiles, wanted: np.ndarray
) -> Iterator[tuple[int, bytes]]:
    column = hub.image
    with _parquet(name, path) as file:
        _column(file, name, column)
        start = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if wanted[start : start + count].any():
                batches = file.iter_batches(_BATCH, row_groups=[group], columns=[column])
                yield from _wanted(name, column, batches, start, wanted)
            start += count


def _wanted(
    name: str, column: str, batches: Iterator[Any], row: int, wanted: np.ndarray
) -> Iterator[tuple[int, bytes]]:
    for batch in batches:
        for value in batch.column(0):
            if wanted[row]:
                yield row, _image_bytes(value.as_py(), f"{name} row {row}, column {column!r}")
            row += 1


def _image_bytes(value: Any, subject: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes) or not content:
        raise InputError(f"{subject}: holds no image bytes (a path alone is not read)")
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"{subject}: {len(content)} bytes; at most {MAX_FILE_BYTES} are read")
    return content


# --- webdataset ---------------------------------------------------------------------------------


def _members(name: str, path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the files of a tar file, in its order. Raises InputError for one that is broken."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile():
                    yield archive, member
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{name}: not a whole tar file ({error}); {_AGAIN}") from error


def _content(name: str, archive: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    if member.size > limit:
        raise InputError(f"{name}: {member.name!r} has {member.size} bytes; at most {limit}")
    stream = archive.extractfile(member)
    return stream.read() if stream else b""


def _samples(name: str, path: Path, suffix: str) -> Iterator[tuple[str, Any, tarfile.TarInfo]]:
    """Yield key, archive and member of each file `<key>.<suffix>`; a row each, by its order."""
    for archive, member in _members(name, path):
        folder, _, base = member.name.rpartition("/")
        key, _, found = base.partition(".")
        if found == suffix:
            yield f"{folder}/{key}", archive, member


def _tar_labels(name: str, path: Path, hub: HubFiles) -> np.ndarray:
    stored, keys = [], []
    for key, archive, member in _samples(name, path, hub.label):
        text = _content(name, archive, member, _MAX_LABEL_BYTES).decode("ascii", "replace").strip()
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InputError(f"{name}: {member.name} holds {text!r}; must be a whole number")
        stored.append(int(text))
        keys.append(key)
    images = [key for key, _, _ in _samples(name, path, hub.image)]
    if images != keys:
        odd = sorted(set(images) ^ set(keys))[:5] or ["the same in another order"]
        raise InputError(
            f"{name}: {len(images)} images .{hub.image} and {len(keys)} labels .{hub.label}, which "
            f"are not of the same keys ({', '.join(odd)})"
        )
    return np.array(stored, dtype=np.int64)


def _tar_count(name: str, path: Path, hub: HubFiles) -> int:
    return sum(1 for _ in _samples(name, path, hub.image))


def _tar_images(
    name: str, path: Path, hub: HubFiles, wanted: np.ndarray
) -> Iterator[tuple[int, bytes]]:
    for row, (_, archive, member) in enumerate(_samples(name, path, hub.image)):
        if wanted[row]:
            content = _content(name, archive, member, MAX_FILE_BYTES)
            yield row, _image_bytes(content, f"{name}, {member.name}")


@dataclass(frozen=True)
class _Reader:
    """How a format's files are read, each by its name and path."""

    labels: Callable[[str, Path, HubFiles], np.ndarray]
    count: Callable[[str, Path, HubFiles], int]
    images: Callable[[str, Path, HubFiles, np.ndarray], Iterator[tuple[int, bytes]]]


_READERS = {
    "parquet": _Reader(_parquet_labels, _parquet_count, _parquet_images),
    "webdataset": _Reader(_tar_labels, _tar_count, _tar_images),
}
