"""Layers that stay on disk: read from one file a task, and written, one tensor at a time."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import BinaryIO

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.atomic import atomic_write
from adamerge_core.checkpoints.memory import as_bytes
from adamerge_core.checkpoints.tensor_files import CODES, ByName, TensorFile, open_files
from adamerge_core.errors import InputError

_BLOCK = 1 << 24
"""Bytes of a block of a layer: its buffer is used again, and so costs no new pages."""


@contextmanager
def tensor_writer(
    path: str | PathLike[str], layout: Mapping[str, Tensor], metadata: Mapping[str, str]
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
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _append(file: BinaryIO, tensor: Tensor) -> None:
    file.write(as_bytes(tensor.detach().cpu().contiguous().view(-1)))


class LazyLayers(ByName):
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


def open_layers(
    paths: Mapping[str, str | PathLike[str]], pretrained: Mapping[str, Tensor]
) -> StoredLayers:
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
