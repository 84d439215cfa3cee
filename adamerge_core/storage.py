"""Tensors that stay on disk: safetensors files read and written one tensor at a time.

Files are read by plain positional reads and never memory-mapped: the pages of a mapping count as
resident memory once touched, those of the page cache do not.
"""

import json
import os
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.atomic import atomic_write
from adamerge_core.errors import InputError
from adamerge_core.safetensors_files import open_safetensors

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

UNCHANGED = "unchanged"
"""The key of a file's metadata with the layers that its task did not change: a JSON list."""

_CHUNK = 1 << 20
"""Bytes to read and convert at once: few enough to stay in the processor's cache."""

_BLOCK = 1 << 24
"""Bytes of a block of a layer: its buffer is used again, and so costs no new pages."""


class _ByName(Mapping[str, Tensor]):
    """A mapping with the names of another one, whose tensors are made anew at each access."""

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        self._named = named

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __contains__(self, name: object) -> bool:
        return name in self._named


class TensorFile(_ByName):
    """A safetensors file as a state dict that reads a tensor at each access.

    Tensors are fresh, on the CPU, in the file's dtype. The file stays open until the object is
    gone, so one that was replaced meanwhile is read as it was. Raises InputError when the file is
    missing, truncated, no safetensors file, or holds a dtype that is not in this module's list.
    """

    def __init__(self, path: Path) -> None:
        with open_safetensors(path):  # checks that tensors fill the file, none overlap
            pass
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        header_bytes = int.from_bytes(os.pread(self._descriptor, 8, 0), "little")
        header = json.loads(os.pread(self._descriptor, header_bytes, 8))
        metadata = header.pop("__metadata__", None) or {}
        self._refuse_unknown_dtypes(header)
        self.layout: dict[str, Tensor] = {
            name: torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]], device="meta")
            for name, entry in header.items()
        }
        """Every tensor's shape and dtype, as a tensor without data."""
        self.unchanged = frozenset(json.loads(metadata.get(UNCHANGED, "[]")))
        """Layers that the file says its task did not change; see read_as_zeros."""
        super().__init__(self.layout)
        self._starts = {n: 8 + header_bytes + e["data_offsets"][0] for n, e in header.items()}

    def _refuse_unknown_dtypes(self, header: Mapping[str, Mapping[str, str]]) -> None:
        faults = [
            f"tensor {name} is {entry['dtype']}, not one of {', '.join(_DTYPES)}"
            for name, entry in header.items()
            if entry["dtype"] not in _DTYPES
        ]
        if faults:
            raise InputError.listing(f"checkpoint {self.path}", faults)

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.empty_like(self.layout[name], device="cpu")
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
            self._read(begin, flat)
            return
        buffer = torch.empty(min(len(flat), _CHUNK // dtype.itemsize), dtype=dtype)
        for start in range(0, len(flat), max(len(buffer), 1)):
            part = flat[start : start + len(buffer)]
            self._read(begin + start * dtype.itemsize, buffer[: len(part)])
            part.copy_(buffer[: len(part)])

    def _read(self, position: int, target: Tensor) -> None:
        rest = as_bytes(target)
        while rest:
            count = os.preadv(self._descriptor, [rest], position)
            if count == 0:
                raise InputError(f"checkpoint {self.path}: was cut short after it was opened")
            rest, position = rest[count:], position + count


def open_files(paths: Mapping[str, Path]) -> dict[str, TensorFile]:
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


@contextmanager
def tensor_writer(
    path: Path, layout: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[Callable[[Tensor], None]]:
    """Write a safetensors file tensor by tensor, whole or not at all: yields the append function.

    layout: every tensor's shape and dtype; the tensors must be given in its order, which has wider
    dtypes before narrower ones, so that each starts at a multiple of its item size.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(_header(layout, metadata))
        yield partial(_append, file)


def _header(layout: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in layout.items():
        start, end = end, end + tensor.numel() * tensor.itemsize
        entries[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _append(file: BinaryIO, tensor: Tensor) -> None:
    file.write(as_bytes(tensor.detach().cpu().contiguous().view(-1)))


def as_bytes(flat: Tensor) -> memoryview:
    """View the memory of a contiguous tensor [n] on the CPU, of any dtype."""
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


class LazyLayers(_ByName):
    """Layers by name, [K, *shape], made anew at each access and not kept."""

    device: torch.device
    """The device of the layers once they are made."""

    @abstractmethod
    def select(self, rows: Sequence[int]) -> "LazyLayers":
        """The layers of some tasks, in the order given."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "LazyLayers":
        """The same layers, each moved to `device` when it is made."""


class StoredLayers(LazyLayers):
    """Layers in one file a task: an access reads the K slices of one layer.

    Stacks have the dtype of `pretrained`, into which narrower files are widened, and unless another
    device is given they are moved to its device as they are read. A layer's values are checked the
    first time it is read: non-finite ones raise an InputError that lists the tasks.
    """

    def __init__(
        self,
        files: Mapping[str, TensorFile],
        pretrained: Mapping[str, Tensor],
        device: torch.device | str | None = None,
        _checked: set[tuple[str, str]] | None = None,
    ) -> None:
        """files: by task, each with every tensor of `pretrained` in its shape; see open_layers."""
        super().__init__(pretrained)
        self._files = dict(files)
        self._pretrained = dict(pretrained)
        self.device = _resolved(_device_of(pretrained) if device is None else device)
        self._checked = set() if _checked is None else _checked

    def __getitem__(self, name: str) -> Tensor:
        model = self._pretrained[name]
        shape = (len(self._files), *model.shape)
        stack = torch.empty(shape, dtype=model.dtype, device=self.device)
        for row, file in zip(stack, self._files.values(), strict=True):
            file.read_into(name, row)
        unchecked = self._unchecked(name)
        self._refuse_non_finite(name, stack, unchecked)
        self._checked.update(unchecked)
        return stack

    def blocks(self, name: str) -> Iterator[tuple[slice, Tensor]]:
        """Read a layer block by block: (slice of its flat entries, their task vectors [K, n]).

        The next block overwrites the last: all are read into one buffer, which costs a fraction of
        the time that reading the layer at once takes. Several threads may read, each its layer.
        """
        model, unchecked = self._pretrained[name], self._unchecked(name)
        size = min(max(_BLOCK // (len(self._files) * model.itemsize), 1), model.numel())
        buffer = torch.empty(len(self._files), size, dtype=model.dtype, device=self.device)
        for start in range(0, max(model.numel(), 1), max(size, 1)):
            block = buffer[:, : model.numel() - start]
            for row, file in zip(block, self._files.values(), strict=True):
                file.read_into(name, row, start)
            self._refuse_non_finite(name, block, unchecked)
            yield slice(start, start + block.shape[1]), block
        self._checked.update(unchecked)

    def _unchecked(self, name: str) -> list[tuple[str, str]]:
        """List the (task, layer) pairs whose values have not been read yet."""
        return [(task, name) for task in self._files if (task, name) not in self._checked]

    def _refuse_non_finite(
        self, name: str, rows: Tensor, unchecked: Sequence[tuple[str, str]]
    ) -> None:
        by_task = dict(zip(self._files, rows, strict=True))
        faults = []
        for task_name, _ in unchecked:
            faults += checkpoints.non_finite(task_name, {name: by_task[task_name]})
        if faults:
            raise InputError.listing("files that hold non-finite values", faults)

    def select(self, rows: Sequence[int]) -> "StoredLayers":
        """The layers of some tasks; the other tasks' files are read no more."""
        task_names = list(self._files)
        files = {task_names[row]: self._files[task_names[row]] for row in rows}
        return StoredLayers(files, self._pretrained, self.device, self._checked)

    def to(self, device: torch.device | str) -> "StoredLayers":
        return StoredLayers(self._files, self._pretrained, device, self._checked)


class MappedLayers(LazyLayers):
    """Layers changed at each access by a function: (name, [K, *shape]) -> [K, *shape]."""

    def __init__(
        self,
        layers: LazyLayers,
        change: Callable[[str, Tensor], Tensor],
        device: torch.device | str | None = None,
    ) -> None:
        """device: the device of the changed layers; None for a change that moves nothing."""
        super().__init__(layers)
        self.device = layers.device if device is None else _resolved(device)
        self._layers = layers
        self._change = change

    def __getitem__(self, name: str) -> Tensor:
        return self._change(name, self._layers[name])

    def select(self, rows: Sequence[int]) -> "MappedLayers":
        chosen = list(rows)
        return MappedLayers(self, lambda _, stack: stack[chosen])

    def to(self, device: torch.device | str) -> "MappedLayers":
        return MappedLayers(self, lambda _, stack: stack.to(device), device)


def open_layers(paths: Mapping[str, Path], pretrained: Mapping[str, Tensor]) -> StoredLayers:
    """Open the layers in one file a task, in the order of `pretrained`; reads headers only.

    Layers are moved to the device of `pretrained` as they are read. A layer that a file lacks and
    calls unchanged is zero for its task. Raises one InputError that lists every fault: files that
    are broken, tensors that some file lacks without saying so, that are none of the pretrained
    model or of another shape, and dtypes that the pretrained one does not hold exactly.
    """
    files = open_files(paths)
    names = [name for name in pretrained if any(name in file for file in files.values())]
    layers = {name: pretrained[name] for name in names}
    faults = []
    for task_name, file in files.items():
        file.read_as_zeros({n: layers[n] for n in file.unchanged & layers.keys() - file.keys()})
        faults += checkpoints.layout_faults(task_name, layers, file.layout)
    if faults:
        raise InputError.listing("task vectors that do not fit the pretrained model", faults)
    return StoredLayers(files, layers, _device_of(pretrained))


def _device_of(tensors: Mapping[str, Tensor]) -> torch.device:
    """The device of the first tensor; the CPU where there is none."""
    return next((tensor.device for tensor in tensors.values()), torch.device("cpu"))


def _resolved(device: torch.device | str) -> torch.device:
    """The device with its index, as its tensors name it: cuda is cuda:0, or the current one."""
    return torch.empty(0, device=device).device
