"""Task vectors: the changes that fine-tuning made to the tensors of one pretrained model."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.checkpoints.tensor_files import UNCHANGED, open_files
from adamerge_core.errors import InputError
from adamerge_core.storage import (
    LazyLayers,
    MappedLayers,
    StoredLayers,
    open_layers,
    tensor_writer,
)
from adamerge_core.tensor_names import name_faults


@dataclass(frozen=True)
class TaskVectors:
    """K task vectors over one pretrained model: tau_k = theta_k - theta_pre (arXiv 2212.04089).

    A layer is one floating-point tensor of the state dict that some task changed, be it a parameter
    or a buffer. Every other tensor stays as pretrained in every merged model and has no
    coefficient: one that no task changed, and any of integers, changed or not.

    So the running_mean and running_var of a batch norm that was fine-tuned in training mode are
    layers, merged by their coefficients. Adaptation has no gradient in a buffer: layer-wise its
    coefficients stay at their start, task-wise its share of the gradient is missing. A rule that
    extrapolates can make a variance negative. `average_running_statistics`, which suites and
    `merge_models` call, gives every merge their mean instead. Or fine-tune with frozen statistics
    (batch norms in evaluation mode), or fold them into the weights of every model, the pretrained
    one among them, before merging (torch.nn.utils.fusion.fuse_conv_bn_eval).

    The layers are in memory (`from_checkpoints`, `load`), or stay in files (`open`,
    `from_checkpoint_files`) and are read at each access: what is resident then does not grow with
    K beyond the slices of one layer, or two while one replaces the other.
    """

    pretrained: StateDict
    """theta_pre, every tensor of the model by name."""
    task_names: tuple[str, ...]
    """The K tasks, in the order of the coefficients' columns."""
    layers: Mapping[str, Tensor]
    """By name, in the order of the coefficients' rows: [K, *shape], dtype as pretrained.

    An access may be a read from K files that gives a fresh tensor: go through them in order, one at
    a time.
    """

    @classmethod
    def from_checkpoints(
        cls, pretrained: StateDict, finetuned: Mapping[str, StateDict]
    ) -> "TaskVectors":
        """Subtract `pretrained` from each task's fine-tuned state dict.

        It is done on the device of `pretrained`, where the layers stay. Raises InputError listing
        all tensors that do not fit (see check_same_architecture).
        """
        _check_by_task("finetuned", finetuned, "state dicts")
        checkpoints.check_same_architecture(pretrained, finetuned)
        layers = {
            name: torch.stack(
                [state[name].to(tensor.device) - tensor for state in finetuned.values()]
            )
            for name, tensor in pretrained.items()
            if tensor.is_floating_point()
        }
        return cls(pretrained, tuple(finetuned), _changed(layers))

    @classmethod
    def from_checkpoint_files(
        cls,
        pretrained: StateDict,
        finetuned: Mapping[str, str | PathLike[str]],
        into: Mapping[str, str | PathLike[str]],
        dtype: torch.dtype | None = None,
    ) -> "TaskVectors":
        """Subtract `pretrained` from each task's safetensors file, tensor by tensor, into files.

        pretrained: on any device, where the subtraction is done. into: a path for each task of
        `finetuned`, written as `save` does; what comes back is what `open` gives for them. Raises
        InputError listing all broken files, or all tensors that do not fit (see
        check_same_architecture), and where `into` has other tasks.
        """
        _check_by_task("finetuned", finetuned, "paths")
        _check_by_task("into", into, "paths")
        if into.keys() != finetuned.keys():
            raise InputError(
                f"into has the tasks {', '.join(into)}, finetuned {', '.join(finetuned)}; give the "
                "same tasks"
            )
        files = open_files(finetuned)
        checkpoints.check_same_architecture(pretrained, files)
        changed = {
            name: tensor
            for name, tensor in pretrained.items()
            if tensor.is_floating_point()
            and any(
                not torch.equal(file[name].to(tensor.device), tensor) for file in files.values()
            )
        }
        models = cls(pretrained, tuple(finetuned), StoredLayers(files, changed))
        models.map_layers(lambda name, stack: stack - pretrained[name]).save(into, dtype)
        return cls.open(pretrained, {task_name: into[task_name] for task_name in finetuned})

    @classmethod
    def open(cls, pretrained: StateDict, paths: Mapping[str, str | PathLike[str]]) -> "TaskVectors":
        """Open task vectors that stay in one file a task, as `save` wrote them.

        Reads headers only. When a layer is read, it is widened to the dtype of `pretrained` and
        moved to its device. Raises InputError listing every file that is broken and every tensor
        that does not fit (see open_layers); non-finite values are refused when their layer is first
        read.
        """
        _check_by_task("paths", paths, "paths")
        faults = checkpoints.state_dict_faults("pretrained", pretrained)
        if faults:
            raise InputError.listing("the pretrained model", faults, _SHOWN)
        return cls(pretrained, tuple(paths), open_layers(paths, pretrained))

    @classmethod
    def load(cls, pretrained: StateDict, paths: Mapping[str, str | PathLike[str]]) -> "TaskVectors":
        """Read task vectors from one file a task into memory. Raises InputError as `open` does."""
        return cls(pretrained, tuple(paths), dict(cls.open(pretrained, paths).layers))

    def save(
        self, paths: Mapping[str, str | PathLike[str]], dtype: torch.dtype | None = None
    ) -> None:
        """Write one safetensors file a task, layer by layer: each file whole or not at all.

        A file says which floating tensors are no layers, so that files written apart can be opened
        together: what one task did not change and another did is zero for the first.

        dtype: float32, bfloat16 or float16, for the layers that are wider than it; None keeps each
        layer's. bfloat16 keeps 8 bits of every entry; float16 keeps 11 of those above 6e-5 in
        magnitude, fewer below, none below 3e-8. Raises InputError for another dtype, an unknown
        task, and where an entry is not finite in the file's dtype.
        """
        if dtype not in _FILE_DTYPES:
            allowed = ", ".join(str(each) for each in _FILE_DTYPES)
            raise InputError(f"dtype = {dtype}: must be one of {allowed}")
        _check_by_task("paths", paths, "paths")
        indices = self._indices(tuple(paths))
        layout = _file_layout({name: self.pretrained[name] for name in self.layers}, dtype)
        unchanged = [
            name
            for name, tensor in self.pretrained.items()
            if tensor.is_floating_point() and name not in layout
        ]
        with ExitStack() as writers:
            appends = [
                writers.enter_context(
                    tensor_writer(
                        path, layout, {"task_name": task_name, UNCHANGED: json.dumps(unchanged)}
                    )
                )
                for task_name, path in paths.items()
            ]
            for name, tensor in layout.items():
                stack = self.layers[name]
                for index, append in zip(indices, appends, strict=True):
                    append(_narrowed(stack[index], tensor.dtype, self.task_names[index], name))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The L names of the layers, in the order of the coefficients' rows."""
        return tuple(self.layers)

    def select(self, task_names: tuple[str, ...]) -> "TaskVectors":
        """The task vectors of some tasks, in the order given."""
        rows = self._indices(task_names)
        if isinstance(self.layers, LazyLayers):
            return TaskVectors(self.pretrained, task_names, self.layers.select(rows))
        layers = {name: stack[rows] for name, stack in self.layers.items()}
        return TaskVectors(self.pretrained, task_names, layers)

    def map_layers(self, change: Callable[[str, Tensor], Tensor]) -> "TaskVectors":
        """Change each layer by a function: (name, [K, *shape]) -> [K, *shape].

        On layers in files the change is made at every access and nothing is kept. After a costly
        one, `save` to other files and `open` those. `change` gives a tensor of the same dtype.
        """
        if isinstance(self.layers, LazyLayers):
            return TaskVectors(self.pretrained, self.task_names, MappedLayers(self.layers, change))
        layers = {name: change(name, stack) for name, stack in self.layers.items()}
        return TaskVectors(self.pretrained, self.task_names, layers)

    def to(self, device: torch.device | str) -> "TaskVectors":
        """The same task vectors on `device`; layers in files stay there and move when read."""
        pretrained = {name: tensor.to(device) for name, tensor in self.pretrained.items()}
        if isinstance(self.layers, LazyLayers):
            return TaskVectors(pretrained, self.task_names, self.layers.to(device))
        moved = self.map_layers(lambda _, stack: stack.to(device))
        return TaskVectors(pretrained, self.task_names, moved.layers)

    def merge_layer(self, name: str, coefficients: Tensor) -> Tensor:
        """Merge one layer by its coefficients [K]: theta_pre^l + sum_k lambda_k^l tau_k^l."""
        pretrained = self.pretrained[name]
        flat = pretrained.reshape(-1)
        if coefficients.requires_grad:  # a block would be overwritten before the backward
            blocks = iter([(slice(None), as_rows(self.layers[name]))])
        else:
            blocks = self.blocks(name)
        parts = [flat[rows] + torch.mv(block.T, coefficients.to(block)) for rows, block in blocks]
        return torch.cat(parts).view(pretrained.shape)

    def blocks(self, name: str) -> Iterator[tuple[slice, Tensor]]:
        """Go through a layer in blocks: (slice of its flat entries, their task vectors [K, n]).

        Layers in files come some entries at a time, each block overwritten by the next; layers in
        memory come all at once.
        """
        if isinstance(self.layers, StoredLayers):
            yield from self.layers.blocks(name)
        else:
            yield slice(None), as_rows(self.layers[name])

    def merge(self, coefficients: Tensor) -> StateDict:
        """Merge the task vectors into one state dict by coefficients (AdaMerging, section 3.2).

        coefficients: [K] task-wise or [L, K] layer-wise, finite, any floating dtype.
        Tensors that are no layer are the pretrained ones. Raises InputError on what `expand`
        refuses, and listing the merged layers that their dtype does not hold.
        """
        rows = self.expand(coefficients)
        merged = {
            name: self.merge_layer(name, row) for name, row in zip(self.layers, rows, strict=True)
        }
        faults = checkpoints.non_finite("merged model", merged)
        if faults:
            largest = coefficients.detach().abs().max().item()
            faults.append(f"coefficients reach {largest:g}; give smaller ones, or a wider dtype")
            raise InputError.listing("a merge that is not finite", faults, _SHOWN)
        return {name: merged.get(name, tensor) for name, tensor in self.pretrained.items()}

    def expand(self, coefficients: Tensor) -> Tensor:
        """Expand coefficients [K] or [L, K] to [L, K].

        Raises InputError on what is no tensor of floating-point numbers, on another shape and on
        non-finite values.
        """
        fault = checkpoints.tensor_fault(coefficients)
        if fault is None and not coefficients.is_floating_point():
            fault = f"is {coefficients.dtype}; give floating-point numbers"
        if fault:
            raise InputError(f"coefficients: the value {fault}")
        shape = (len(self.layers), len(self.task_names))
        if coefficients.shape not in (shape, shape[1:]):
            raise InputError(
                f"coefficients of shape {list(coefficients.shape)}: {shape[0]} layers, {shape[1]} "
                f"tasks need [{shape[1]}] or [{shape[0]}, {shape[1]}]"
            )
        if not torch.isfinite(coefficients).all():
            raise InputError("coefficients hold non-finite values; give finite ones")
        return coefficients.expand(shape)

    def flat(self, task_index: int) -> Tensor:
        """Join one task vector's layers into one vector [parameters]."""
        layers, row = self.layers, task_index
        if isinstance(layers, LazyLayers):
            layers, row = layers.select([task_index]), 0
        return torch.cat([stack[row].reshape(-1) for stack in layers.values()])

    def _indices(self, task_names: tuple[str, ...]) -> list[int]:
        if isinstance(task_names, str):
            raise InputError(f"task names {task_names!r}: give a tuple of names, ({task_names!r},)")
        repeated = sorted({name for name in task_names if task_names.count(name) > 1})
        if repeated:
            raise InputError(f"task {', '.join(repeated)} is named twice; name each once")
        unknown = [name for name in task_names if name not in self.task_names]
        if unknown:
            raise InputError(
                f"no task {', '.join(unknown)}; the tasks are {', '.join(self.task_names)}"
            )
        return [self.task_names.index(name) for name in task_names]


def _check_by_task(name: str, given: object, what: str) -> None:
    """Raise InputError unless something is given for at least one task, by names."""
    if not isinstance(given, Mapping):
        raise InputError(f"{name} is {type(given).__name__}: give a dict of {what} by task name")
    if not given:
        raise InputError(f"{name} is empty: give {what} of at least one task")
    faults = name_faults(given)
    if faults:
        raise InputError.listing(f"task names of {name}", faults, _SHOWN)


def as_rows(stack: Tensor) -> Tensor:
    """Flatten a layer's task vectors [K, *shape] to rows [K, n]."""
    return stack.reshape(len(stack), -1)


_SHOWN = 20
"""Lines of an error, at most."""

_FILE_DTYPES = (None, torch.float32, torch.bfloat16, torch.float16)


def _changed(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: stack for name, stack in layers.items() if bool((stack != 0).any())}


def _file_layout(layers: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Plan a file: the shape and dtype of every layer, wider dtypes first."""
    layout = {}
    for name, tensor in layers.items():
        narrows = dtype is not None and checkpoints.widens(dtype, tensor.dtype)
        layout[name] = torch.empty_like(
            tensor, dtype=dtype if narrows else tensor.dtype, device="meta"
        )
    return dict(sorted(layout.items(), key=lambda entry: -entry[1].itemsize))


def _narrowed(vector: Tensor, dtype: torch.dtype, task_name: str, name: str) -> Tensor:
    narrowed = vector.to(dtype)
    if not checkpoints.all_finite(narrowed):
        finite = torch.isfinite(narrowed)
        raise InputError(
            f"{task_name}: layer {name} has an entry {vector[~finite][0].item():g}, which {dtype} "
            f"does not hold (largest {torch.finfo(dtype).max:g}); save in a wider dtype"
        )
    return narrowed
