"""Safetensors files as state dicts whose tensors are read when they are asked for.

Files are read by plain positional reads and never memory-mapped: the pages of a mapping count as
resident memory once touched, those of the page cache do not.
"""

import json
import os
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from adamerge_core.checkpoints.memory import as_bytes, empty
from adamerge_core.errors import InputError
from adamerge_core.safetensors_files import SafetensorsFile

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By the code of a safetensors file the dtype; checkpoints hold no others."""

CODES = {dtype: code for code, dtype in DTYPES.items()}

UNCHANGED = "unchanged"
"""The key of a file's metadata with the layers that its task did not change: a JSON list."""

_CHUNK = 1 << 20
"""Bytes to read and convert at once: few enough to stay in the processor's cache."""


class ByName(Mapping[str, Tensor]):
    """A mapping with the names of another one, whose tensors are made anew at each access."""

    def __init__(self, named: Mapping[str, object]) -> None:
        self._named = named

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __contains__(self, name: object) -> bool:
        return name in self._named


class TensorFile(ByName):
    """A safetensors file as a state dict that reads a tensor at each access.

    Tensors are fresh, on the CPU, in the file's dtype. Raises InputError as SafetensorsFile does.
    """

    def __init__(self, path: str | os.PathLike[str], subject: str = "checkpoint") -> None:
        """subject: what messages call the file."""
        self.file = SafetensorsFile(path, subject)
        self.layout: dict[str, Tensor] = {
            name: torch.empty(entry.shape, dtype=DTYPES[entry.code], device="meta")
            for name, entry in self.file.entries.items()
        }
        """Every tensor's shape and dtype, as a tensor without data."""
        self.unchanged = _unchanged(self.file)
        """Layers that the file says its task did not change; see read_as_zeros."""
        super().__init__(self.layout)
        self._starts = {name: entry.start for name, entry in self.file.entries.items()}

    def __getitem__(self, name: str) -> Tensor:
        tensor = empty(self.layout[name].shape, self.layout[name].dtype)
        self.read_into(name, tensor)
        return tensor

    def read_as_zeros(self, layout: Mapping[str, Tensor]) -> None:
        """Have the file give zeros for these tensors, which it does not hold."""
        self.layout.update({n: torch.empty_like(t, device="meta") for n, t in layout.items()})

    def read_into(self, name: str, target: Tensor, first: int = 0) -> None:
        """Read a tensor's entries from number `first` on, as many as `target` holds.

        target: contiguous, any shape, dtype and device.
        """
        if name not in self._starts:
            target.zero_()
            return
        dtype, flat = self.layout[name].dtype, target.view(-1)
        begin = self._starts[name] + first * dtype.itemsize
        if flat.dtype == dtype and flat.device.type == "cpu":
            self.file.read_into(as_bytes(flat), begin)
            return
        buffer = torch.empty(min(len(flat), _CHUNK // dtype.itemsize), dtype=dtype)
        for start in range(0, len(flat), max(len(buffer), 1)):
            part = flat[start : start + len(buffer)]
            self.file.read_into(as_bytes(buffer[: len(part)]), begin + start * dtype.itemsize)
            part.copy_(buffer[: len(part)])


def _unchanged(file: SafetensorsFile) -> frozenset[str]:
    """Read which layers a file of task vectors says that its task did not change."""
    try:
        names = json.loads(file.metadata.get(UNCHANGED, "[]"))
    except (ValueError, RecursionError) as error:
        raise file.fault(f"its entry {UNCHANGED} is no JSON: {str(error)[:200]}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise file.fault(f"its entry {UNCHANGED} is no list of names")
    return frozenset(names)


def open_files(paths: Mapping[str, str | os.PathLike[str]]) -> dict[str, TensorFile]:
    """Open one file a task. Raises one InputError that lists the broken ones."""
    files, faults = {}, []
    for task_name, path in paths.items():
        try:
            files[task_name] = TensorFile(path)
        except InputError as error:
            faults.append(f"{task_name}: {error}")
    if faults:
        raise InputError.listing("files that cannot be read", faults)
    return files
