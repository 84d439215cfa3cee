"""Safetensors files: read by position, their layout and seals checked. Nothing here imports torch.

The library safetensors writes them. It reads by mapping a file into memory, where a file that is
cut afterwards ends the process; and a header that names a tensor twice it takes. So reading is done
here, from one descriptor that is open from the first check to the last read.
"""

import hashlib
import json
import math
import os
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge_core.errors import InputError
from adamerge_core.regular_files import open_regular
from adamerge_core.tensor_names import name_faults

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "C64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""By the code of a dtype the bytes of an entry."""

SEALED = "sealed"
"""The key of a file's metadata with a JSON object: `content`, any JSON, and `blake2b`, a checksum
of it and of all tensors."""

_HEADER_LIMIT = 1 << 25
"""Bytes: room for 250,000 tensors, and few enough that reading it takes no more than a second."""

_DIMENSIONS = 64
"""Most dimensions of a tensor."""

_CHUNK = 1 << 20
_SHOWN = 20


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file."""

    code: str
    """Its dtype, a key of ITEM_BYTES."""
    shape: tuple[int, ...]
    start: int
    """Its first byte, counted from the file's beginning."""
    size: int
    """Bytes."""


class SafetensorsFile:
    """A safetensors file whose header was checked: every byte belongs to one tensor.

    The file stays open until the object is gone, so one that was replaced meanwhile is read as it
    was. Raises InputError when the file is missing, not regular, truncated or no safetensors file,
    and listing the entries of the header that break a rule: names that are not unique, unknown
    dtypes, shapes that do not fit their bytes, bytes of no tensor or of two.
    """

    def __init__(self, path: str | os.PathLike[str], subject: str = "checkpoint") -> None:
        """subject: what messages call the file."""
        self._file = open_regular(path, subject)
        self.path, self.subject = Path(path), subject
        weakref.finalize(self, self._file.close)
        self._descriptor = self._file.fileno()
        size = os.fstat(self._descriptor).st_size
        header, first = self._header(size)
        metadata = header.pop("__metadata__", None)
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise self.fault("its __metadata__ must be texts by name")
        self.metadata: dict[str, str] = metadata
        self.entries: dict[str, Entry] = self._entries(header, first, size)

    def fault(self, what: str) -> InputError:
        """Make the error of a file that is damaged or of another kind."""
        size = os.fstat(self._descriptor).st_size
        return InputError(
            f"{self.subject} {self.path} ({size} bytes): not a whole safetensors file ({what}); "
            "copy or make it again"
        )

    def _header(self, size: int) -> tuple[dict[str, Any], int]:
        """Read the header, and the position of the first byte after it."""
        if size < 8:
            raise self.fault("it is shorter than the 8 bytes of a header's length")
        length = int.from_bytes(self._bytes(8, 0), "little")
        if not 2 <= length <= size - 8:
            raise self.fault(f"a header of {length} bytes, the file has {size - 8} for it")
        if length > _HEADER_LIMIT:
            raise self.fault(f"a header of {length} bytes; at most {_HEADER_LIMIT} are read")
        raw = self._bytes(length, 8)
        if raw[:1] != b"{":
            raise self.fault("its header is no JSON object")
        repeated: list[str] = []

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(pairs)
            if len(found) < len(pairs):
                counts = Counter(name for name, _ in pairs)
                repeated.extend(ascii(name)[:100] for name, n in counts.items() if n > 1)
            return found

        try:
            header = json.loads(raw.decode(), object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            raise self.fault(f"its header is no JSON: {str(error)[:200]}") from error
        if repeated:
            raise self.fault(f"its header names {', '.join(repeated[:_SHOWN])} twice")
        return header, 8 + length

    def _entries(self, header: Mapping[str, Any], first: int, size: int) -> dict[str, Entry]:
        faults = name_faults(header)
        entries: dict[str, Entry] = {}
        for name, given in header.items():
            fault = _entry_fault(given)
            if fault:
                faults.append(f"tensor {ascii(name)[1:-1][:100]} {fault}")
                continue
            start, end = given["data_offsets"]
            entries[name] = Entry(given["dtype"], tuple(given["shape"]), first + start, end - start)
        if faults:
            raise InputError.listing(f"{self.subject} {self.path}", faults, _SHOWN)
        end = first
        for name, each in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
            if each.start != end:
                raise self.fault(
                    f"tensor {ascii(name)[1:-1][:100]} starts at byte {each.start}, the one before "
                    f"it ends at {end}"
                )
            end += each.size
        if end != size:
            raise self.fault(f"its tensors end at byte {end}, the file at {size}")
        return entries

    def _bytes(self, count: int, position: int) -> bytes:
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), position)
        return bytes(buffer)

    def read_into(self, target: memoryview, position: int) -> None:
        """Fill `target`, bytes, from a position on. Raises InputError where the file ends."""
        while target:
            try:
                count = os.preadv(self._descriptor, [target], position)
            except OSError as error:
                raise InputError(
                    f"{self.subject} {self.path}: cannot be read at byte {position} "
                    f"({error.strerror}); copy or make it again"
                ) from error
            if count == 0:
                raise InputError(f"{self.subject} {self.path}: was cut short after it was opened")
            target, position = target[count:], position + count

    def sealed_content(self) -> Any:
        """Read the JSON content of a sealed file, once its checksum is seen to be right.

        Raises InputError when the file has no seal, or when content or tensors are not those that
        were sealed.
        """
        try:
            sealed = json.loads(self.metadata[SEALED])
            content, checksum = sealed["content"], sealed["blake2b"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{self.subject} {self.path}: has no checksum of its content, so it is of another "
                f"kind or damaged; delete the file, or give the path of a {self.subject}"
            ) from error
        if set(self.metadata) != {SEALED} or set(sealed) != {"content", "blake2b"}:
            raise self._broken_seal()
        digest = hashlib.blake2b(_canonical(content), digest_size=16)
        buffer = memoryview(bytearray(_CHUNK))
        for name, entry in sorted(self.entries.items()):
            digest.update(_canonical([name, entry.code, entry.shape]))
            for start in range(0, entry.size, _CHUNK):
                part = buffer[: min(_CHUNK, entry.size - start)]
                self.read_into(part, entry.start + start)
                digest.update(part)
        if digest.hexdigest() != checksum:
            raise self._broken_seal()
        return content

    def _broken_seal(self) -> InputError:
        return InputError(
            f"{self.subject} {self.path}: its content does not fit its checksum, so it was damaged "
            "or changed after it was written; delete it, or restore a copy"
        )


def _entry_fault(given: Any) -> str | None:
    """Say what is wrong with an entry of the header, None if it is right."""
    if not isinstance(given, dict) or set(given) != {"dtype", "shape", "data_offsets"}:
        return "must have dtype, shape and data_offsets, nothing else"
    code, shape, offsets = given["dtype"], given["shape"], given["data_offsets"]
    if not isinstance(code, str) or code not in ITEM_BYTES:
        return f"is {ascii(code)[:50]}, not one of {', '.join(ITEM_BYTES)}; convert it"
    if not _are_counts(shape) or len(shape) > _DIMENSIONS:
        return f"has shape {ascii(shape)[:100]}: must be at most {_DIMENSIONS} whole numbers from 0"
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"has data_offsets {ascii(offsets)[:100]}: must be its first byte and its end"
    if math.prod(max(each, 1) for each in shape) >= 2**63:
        return f"has shape {shape}: more entries than there can be"
    needed = math.prod(shape) * ITEM_BYTES[code]
    if needed != offsets[1] - offsets[0]:
        return f"has {offsets[1] - offsets[0]} bytes; {code} of shape {shape} has {needed}"
    return None


def _are_counts(values: Any) -> bool:
    # a header is untrusted: bool is an int, and 10^4000 one that takes long to multiply
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def seal(content: Any, tensors: Iterable[tuple[str, str, tuple[int, ...], Any]]) -> dict[str, str]:
    """Make the metadata of a sealed file: JSON content, with a checksum of it and of the tensors.

    tensors: (name, code of the dtype, shape, the bytes as a buffer) of every one in the file.
    """
    digest = hashlib.blake2b(_canonical(content), digest_size=16)
    for name, code, shape, data in sorted(tensors, key=lambda each: each[0]):
        digest.update(_canonical([name, code, shape]))
        digest.update(data)
    # one entry: safetensors writes several in an order that changes from process to process
    return {SEALED: json.dumps({"content": content, "blake2b": digest.hexdigest()})}


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the text entries that a safetensors file holds beside its tensors.

    Raises InputError as SafetensorsFile does.
    """
    return dict(SafetensorsFile(path).metadata)
