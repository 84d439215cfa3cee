"""Where the storages of a file that torch.save or pickle.dump wrote lie, and what its pickle says.

Three forms are read: a zip archive of a pickle and one member a storage; older, pickles with the
storages after them; and a plain pickle, each of whose storages is a file of the older form.
"""

import io
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import torch

from adamerge_core.checkpoints.pickles import (
    Allowed,
    Bytes,
    Instance,
    PickleError,
    Storage,
    TensorView,
    read,
    values_in,
)

DTYPES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "ComplexFloat": torch.complex64,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
"""By the name of a storage's class the dtype of its entries."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the older form."""

_PICKLE_LIMIT = 1 << 26
"""Bytes of the pickle of an archive."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a file holds: its pickle as read, and where the storages are."""

    value: Any
    sizes: Mapping[str, int]
    """Bytes of each storage in the file, by key."""
    load: Callable[[str, memoryview], None]
    """Reads a storage by its key into as many bytes as it has."""


def read_content(file: BinaryIO, size: int, classes: frozenset[str] = frozenset()) -> Content:
    """Read a file of any of the three forms, of `size` bytes, from its beginning.

    classes: of objects that the pickle may hold, as `module name`; see Allowed. A plain pickle is
    read only where it holds one. Raises PickleError, and the many types of a damaged archive.
    """
    if _is_zip(file):
        return _zip_content(file, size, Allowed(classes))
    inner = _InnerFiles(file)
    first = read(file, Allowed(classes, inner.storage if classes else None))
    if first == _MAGIC:
        return _older_content(file, size, Allowed(classes))
    if not isinstance(first, Instance):
        raise PickleError("a pickle that torch.save did not write")
    if file.tell() != size:
        raise PickleError(f"{size - file.tell()} bytes after its pickle")
    return inner.content(first)


def _is_zip(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def _zip_content(file: BinaryIO, size: int, allowed: Allowed) -> Content:
    archive = zipfile.ZipFile(file)
    members = {member.filename: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise PickleError("an archive that has a member twice")
    for member in members.values():
        # torch stores; what is deflated may grow a thousandfold
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise PickleError(f"a compressed member {member.filename[:100]}, as torch writes none")
    if sum(member.file_size for member in members.values()) > size:
        raise PickleError("an archive that says that it is larger than it is")
    pickled = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickled) != 1:
        raise PickleError("an archive without one pickle data.pkl")
    folder = pickled[0].removesuffix("data.pkl")
    if folder + "constants.pkl" in members:
        raise PickleError("a TorchScript program")
    order = members.get(folder + "byteorder")
    if order and archive.read(order) != sys.byteorder.encode():
        raise PickleError("numbers of another byte order than this machine's")
    if members[pickled[0]].file_size > _PICKLE_LIMIT:
        raise PickleError(f"a pickle of more than {_PICKLE_LIMIT} bytes beside its tensors")
    value = read(io.BytesIO(archive.read(pickled[0])), allowed)
    storages = {
        name.removeprefix(f"{folder}data/"): member
        for name, member in members.items()
        if name.startswith(f"{folder}data/")
    }

    def load(key: str, target: memoryview) -> None:
        with archive.open(storages[key]) as stored:  # checks the member's CRC at its end
            _fill(target, stored)

    return Content(value, {key: each.file_size for key, each in storages.items()}, load)


def _older_content(file: BinaryIO, end: int, allowed: Allowed) -> Content:
    """Read what follows the first pickle, up to `end`."""
    version, system = read(file), read(file)
    value, keys = read(file, allowed), read(file)
    if version != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise PickleError("a pickle of an unknown version of torch.save")
    if system.get("little_endian") is not (sys.byteorder == "little"):
        raise PickleError("numbers of another byte order than this machine's")
    described = {each.key: each for each in _storages(value)}
    starts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    position = file.tell()
    for key in keys:
        if not isinstance(key, str) or key in starts:
            raise PickleError("storages that are not told apart")
        file.seek(position)
        count = int.from_bytes(file.read(8), "little", signed=True)
        if key not in described:
            raise PickleError("a storage of no tensor, so that its size is unknown")
        starts[key], sizes[key] = position + 8, count * item_bytes(described[key])
        position += 8 + sizes[key]
        if count < 0 or position > end:
            raise PickleError(f"a storage of {count} entries, which the file is too short for")
    if position != end:
        raise PickleError(f"{end - position} bytes after its last storage")

    def load(key: str, target: memoryview) -> None:
        file.seek(starts[key])
        _fill(target, file)

    return Content(value, sizes, load)


def _fill(target: memoryview, source: IO[bytes]) -> None:
    while target:
        part = source.read(min(len(target), _CHUNK))
        if not part:
            raise PickleError("a storage that is cut short")
        target[: len(part)] = part
        target = target[len(part) :]


def _storages(value: Any) -> Iterator[Storage]:
    """Go through the storages of a pickle's tensors, and those that stand alone."""
    for each in values_in(value):
        if isinstance(each, Storage):
            yield each
        elif isinstance(each, TensorView):
            yield each.storage


class _InnerFiles:
    """The storages of a plain pickle, each a file of the older form among the pickle's bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read: dict[Bytes, tuple[Storage, Content]] = {}

    def storage(self, inner: Bytes) -> Storage:
        """Describe the storage of an inner file, which may hold nothing but it.

        Each is read once, however often the pickle asks for it, and its bytes are left in the file.
        """
        if inner not in self._read:
            after = self._file.tell()
            self._file.seek(inner.start)
            if read(self._file) != _MAGIC:
                raise PickleError("a storage that torch.save did not write")
            content = _older_content(self._file, inner.end, Allowed())
            self._file.seek(after)
            if not isinstance(content.value, Storage):
                raise PickleError("a storage that is something else")
            self._read[inner] = content.value, content
        found, _ = self._read[inner]
        return Storage(found.kind, str(inner.start), found.count)

    def content(self, value: Any) -> Content:
        """Put the storages that were read together, under the keys that `storage` gave them."""
        stored = {
            str(inner.start): (found.key, content) for inner, (found, content) in self._read.items()
        }

        def load(key: str, target: memoryview) -> None:
            inner_key, content = stored[key]
            content.load(inner_key, target)

        sizes = {key: content.sizes[inner] for key, (inner, content) in stored.items()}
        return Content(value, sizes, load)


def item_bytes(storage: Storage) -> int:
    """Bytes of an entry, by which a storage's count is one of bytes."""
    dtype = DTYPES.get(storage.kind)
    if dtype is None and storage.kind != "torch.storage UntypedStorage":
        kind = storage.kind.removeprefix("torch ")[:100]
        raise PickleError(f"tensors in a {kind}, which no rule merges; convert them")
    return 1 if dtype is None else dtype.itemsize
