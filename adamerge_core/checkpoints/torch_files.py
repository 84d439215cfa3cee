"""Files that torch.save wrote, read without running code from them, nor torch's own reader.

Both forms are read: a zip archive of a pickle and one member a storage, and, older, pickles with
the storages after them. The pickle is read as a description (see pickles); what it describes is
held against the bytes that are there before any of them is read.
"""

import io
import math
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from adamerge_core.checkpoints.memory import as_bytes, empty
from adamerge_core.checkpoints.pickles import PickleError, Storage, TensorView, read
from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular
from adamerge_core.tensor_names import name_faults

_DTYPES = {
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
_SUPPORTED = frozenset(_DTYPES.values())

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the older form."""

_PICKLE_LIMIT = 1 << 26
"""Bytes of the pickle of an archive."""

_OVERLAP = 8
"""How many times the bytes of the file its tensors may be together: tied weights share theirs."""

_CHUNK = 1 << 20
_SHOWN = 20

_FIX = "save model.state_dict() and give that file"


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a zip archive or a pickle does, the two forms of torch.save.

    Raises InputError when it is missing or not regular.
    """
    with open_regular(path) as file:
        start = file.read(9)
    # a safetensors file begins with 8 bytes of any value, its header's length, and the header
    return start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80"))


@dataclass(frozen=True)
class _Content:
    """What a file holds: its pickle as read, and where the storages are."""

    value: Any
    sizes: Mapping[str, int]
    """Bytes of each storage in the file, by key."""
    load: Callable[[str, memoryview], None]
    """Reads a storage by its key into as many bytes as it has."""


def load_torch_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict, plain or under the key `state_dict`, onto the CPU.

    Tensors are contiguous or strided as they were saved; those that shared memory share it. Raises
    InputError when the file is damaged, holds anything but tensors with names that are told apart,
    would need code to be read, or describes more than it holds.
    """
    with open_regular(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        try:
            with io.BufferedReader(raw) as file:
                content = _zip_content(file, size) if _is_zip(file) else _older_content(file, size)
                views = _state_dict(content.value, path)
                _check(views, content, size, path)
                return _tensors(views, content)
        except InputError:
            raise
        except PickleError as error:
            raise InputError(
                f"checkpoint {Path(path)} ({size} bytes): holds {error}; {_FIX} (pickled modules "
                "are not loaded, since loading them runs code)"
            ) from error
        except (MemoryError, OSError) as error:
            raise InputError(
                f"checkpoint {Path(path)} ({size} bytes): cannot be read ({error}); free memory, "
                "or copy it again"
            ) from error
        except Exception as error:  # zipfile raises many types for a damaged archive
            raise InputError(
                f"checkpoint {Path(path)} ({size} bytes): a damaged torch file "
                f"({type(error).__name__} {str(error)[:200]}); copy or make it again"
            ) from error


def _is_zip(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def _zip_content(file: BinaryIO, size: int) -> _Content:
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
    value = read(io.BytesIO(archive.read(pickled[0])))
    storages = {
        name.removeprefix(f"{folder}data/"): member
        for name, member in members.items()
        if name.startswith(f"{folder}data/")
    }

    def load(key: str, target: memoryview) -> None:
        with archive.open(storages[key]) as stored:  # checks the member's CRC at its end
            _fill(target, stored)

    return _Content(value, {key: each.file_size for key, each in storages.items()}, load)


def _older_content(file: BinaryIO, size: int) -> _Content:
    if read(file) != _MAGIC:
        raise PickleError("a pickle that torch.save did not write")
    version, system, value, keys = (read(file) for _ in range(4))
    if version != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise PickleError("a pickle of an unknown version of torch.save")
    if system.get("little_endian") is not (sys.byteorder == "little"):
        raise PickleError("numbers of another byte order than this machine's")
    described = {each.storage.key: each.storage for each in _views(value)}
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
        starts[key], sizes[key] = position + 8, count * _item_bytes(described[key])
        position += 8 + sizes[key]
        if count < 0 or position > size:
            raise PickleError(f"a storage of {count} entries, which the file is too short for")
    if position != size:
        raise PickleError(f"{size - position} bytes after its last storage")

    def load(key: str, target: memoryview) -> None:
        file.seek(starts[key])
        _fill(target, file)

    return _Content(value, sizes, load)


def _fill(target: memoryview, source: IO[bytes]) -> None:
    while target:
        part = source.read(min(len(target), _CHUNK))
        if not part:
            raise PickleError("a storage that is cut short")
        target[: len(part)] = part
        target = target[len(part) :]


def _views(value: Any) -> Iterator[TensorView]:
    """Go through the tensors in dicts, lists and tuples, each of these once."""
    seen: set[int] = set()
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, TensorView):
            yield each
        elif isinstance(each, dict | list | tuple) and id(each) not in seen:
            seen.add(id(each))
            left.extend(each.values() if isinstance(each, dict) else each)


def _state_dict(value: Any, path: str | os.PathLike[str]) -> dict[str, TensorView]:
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict) or not all(isinstance(v, TensorView) for v in value.values()):
        raise InputError(f"checkpoint {Path(path)}: holds no state dict; save model.state_dict()")
    faults = name_faults(value)
    if faults:
        raise InputError.listing(f"checkpoint {Path(path)}", faults, _SHOWN)
    return value


def _dtype(view: TensorView) -> torch.dtype | None:
    """The tensor's dtype; None for one that no rule merges."""
    if view.dtype is None:
        return _DTYPES.get(view.storage.kind)
    found = getattr(torch, view.dtype.removeprefix("torch "), None)
    return found if isinstance(found, torch.dtype) and found in _SUPPORTED else None


def _item_bytes(storage: Storage) -> int:
    """Bytes of an entry, by which a storage's count is one of bytes."""
    dtype = _DTYPES.get(storage.kind)
    if dtype is None and storage.kind != "torch.storage UntypedStorage":
        kind = storage.kind.removeprefix("torch ")[:100]
        raise PickleError(f"tensors in a {kind}, which no rule merges; convert them")
    return 1 if dtype is None else dtype.itemsize


def _check(
    views: Mapping[str, TensorView], content: _Content, size: int, path: str | os.PathLike[str]
) -> None:
    """Raise one InputError that lists the tensors that are not all there in the file."""
    faults = []
    for name, view in views.items():
        fault = _view_fault(view, content.sizes)
        if fault:
            faults.append(f"tensor {ascii(name)[1:-1][:100]} {fault}")
    if faults:
        raise InputError.listing(f"checkpoint {Path(path)} ({size} bytes)", faults, _SHOWN)
    total = sum(math.prod(view.shape) * _known(view).itemsize for view in views.values())
    if total > _OVERLAP * size:
        raise InputError(
            f"checkpoint {Path(path)} ({size} bytes): its tensors overlap and are {total} bytes "
            f"together; at most {_OVERLAP} times the file's are read: save copies of them"
        )


def _view_fault(view: TensorView, sizes: Mapping[str, int]) -> str | None:
    dtype = _dtype(view)
    if dtype is None:
        kind = (view.dtype or view.storage.kind).removeprefix("torch ")[:100]
        known = ", ".join(sorted(str(each).removeprefix("torch.") for each in _SUPPORTED))
        return f"is {kind}, not one of {known}; convert it"
    stored = sizes.get(view.storage.key)
    if stored is None:
        return "has no storage in the file"
    if stored != view.storage.count * _item_bytes(view.storage):
        return f"says that its storage has {view.storage.count} entries, it has {stored} bytes"
    if len(view.shape) > 64:
        return f"has {len(view.shape)} dimensions: at most 64 are read"
    if math.prod(max(each, 1) for each in view.shape) >= 2**63:
        return f"has shape {list(view.shape)}: more entries than there can be"
    if 0 in view.shape:
        return None
    spans = [(n - 1) * step for n, step in zip(view.shape, view.strides, strict=True)]
    reach = (view.offset + sum(spans) + 1) * dtype.itemsize
    if reach > stored:
        return f"reaches to byte {reach} of a storage of {stored}"
    if math.prod(view.shape) * dtype.itemsize > stored or _overlaps(view):
        return (
            f"of shape {list(view.shape)} and strides {list(view.strides)} repeats its entries; "
            "save tensor.contiguous()"
        )
    return None


def _overlaps(view: TensorView) -> bool:
    """Whether some entry may be two of the tensor's: strides that do not step over each other."""
    end = 1
    for step, count in sorted(zip(view.strides, view.shape, strict=True)):
        if count > 1:
            if step < end:
                return True
            end = (count - 1) * step + end
    return False


def _known(view: TensorView) -> torch.dtype:
    dtype = _dtype(view)
    assert dtype is not None  # checked before
    return dtype


def _tensors(views: Mapping[str, TensorView], content: _Content) -> dict[str, Tensor]:
    """Make the tensors; each storage is read once, and one that nobody names not at all."""
    memory: dict[str, Tensor] = {}
    made = {}
    for name, view in views.items():
        dtype, key = _known(view), view.storage.key
        if 0 in view.shape:
            made[name] = torch.empty(view.shape, dtype=dtype)
            continue
        if key not in memory:
            memory[key] = empty(content.sizes[key], torch.uint8)
            content.load(key, as_bytes(memory[key]))
        whole = memory[key][: content.sizes[key] // dtype.itemsize * dtype.itemsize]
        made[name] = torch.as_strided(whole.view(dtype), view.shape, view.strides, view.offset)
    return made
