"""Task vectors: what fine-tuning added to each tensor of one pretrained model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adamerge_core import checkpoints
from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError


@dataclass(frozen=True)
class TaskVectors:
    """K task vectors over one pretrained model: tau_k = theta_k - theta_pre (arXiv 2212.04089).

    A layer is one parameter tensor. A tensor that no task changed is no layer: it stays as
    pretrained in every merged model and has no coefficient.
    """

    pretrained: StateDict
    """theta_pre, every tensor of the model by name."""
    task_names: tuple[str, ...]
    """The K tasks, in the order of the coefficients' columns."""
    layers: dict[str, Tensor]
    """By name, in the order of the coefficients' rows: [K, *shape], dtype as pretrained."""

    @classmethod
    def from_checkpoints(
        cls, pretrained: StateDict, finetuned: Mapping[str, StateDict]
    ) -> "TaskVectors":
        """Subtract `pretrained` from each task's fine-tuned state dict.

        Raises InputError listing all tensors that do not fit (see check_same_architecture).
        """
        if not finetuned:
            raise InputError("no fine-tuned checkpoint was given; give at least one")
        checkpoints.check_same_architecture(pretrained, finetuned)
        layers = {
            name: torch.stack([state[name] - tensor for state in finetuned.values()])
            for name, tensor in pretrained.items()
            if tensor.is_floating_point()
        }
        return cls(pretrained, tuple(finetuned), _changed(layers))

    @classmethod
    def load(cls, pretrained: StateDict, paths: Mapping[str, Path]) -> "TaskVectors":
        """Read one file a task, as `save` wrote them.

        Raises InputError when the files' layers differ or are no tensors of the pretrained model.
        """
        vectors = {task_name: checkpoints.load(path) for task_name, path in paths.items()}
        names = [name for name in pretrained if any(name in vector for vector in vectors.values())]
        layers_of_model = {name: pretrained[name] for name in names}
        checkpoints.check_same_architecture(layers_of_model, vectors)
        layers = {n: torch.stack([vector[n] for vector in vectors.values()]) for n in names}
        return cls(pretrained, tuple(paths), layers)

    def save(self, paths: Mapping[str, Path]) -> None:
        """Write one safetensors file a task: every layer's task vector by name."""
        for task_name, path in paths.items():
            index = self.task_names.index(task_name)
            vector = {name: stack[index] for name, stack in self.layers.items()}
            checkpoints.save(path, vector, {"task_name": task_name})

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(self.layers)

    def select(self, task_names: tuple[str, ...]) -> "TaskVectors":
        """The task vectors of some tasks, in the order given."""
        rows = [self.task_names.index(name) for name in task_names]
        layers = {name: stack[rows] for name, stack in self.layers.items()}
        return TaskVectors(self.pretrained, task_names, layers)

    def map_layers(self, change: Callable[[str, Tensor], Tensor]) -> "TaskVectors":
        """The task vectors with each layer changed: (name, [K, *shape]) -> [K, *shape]."""
        layers = {name: change(name, stack) for name, stack in self.layers.items()}
        return TaskVectors(self.pretrained, self.task_names, layers)

    def to(self, device: torch.device | str) -> "TaskVectors":
        """The same task vectors on `device`."""
        pretrained = {name: tensor.to(device) for name, tensor in self.pretrained.items()}
        moved = self.map_layers(lambda _, stack: stack.to(device))
        return TaskVectors(pretrained, self.task_names, moved.layers)

    def merge_layer(self, name: str, coefficients: Tensor) -> Tensor:
        """theta_pre^l + sum_k lambda_k^l tau_k^l for one layer; `coefficients` is [K]."""
        stack, pretrained = self.layers[name], self.pretrained[name]
        weights = coefficients.to(stack.device, stack.dtype)
        return pretrained + torch.mv(stack.reshape(len(stack), -1).T, weights).view(
            pretrained.shape
        )

    def merge(self, coefficients: Tensor) -> StateDict:
        """The merged state dict (AdaMerging, section 3.2).

        coefficients: [K] task-wise or [L, K] layer-wise, finite, any floating dtype.
        Tensors that are no layer are the pretrained ones. Raises InputError on another shape.
        """
        rows = self.expand(coefficients)
        merged = {
            name: self.merge_layer(name, row) for name, row in zip(self.layers, rows, strict=True)
        }
        return {name: merged.get(name, tensor) for name, tensor in self.pretrained.items()}

    def expand(self, coefficients: Tensor) -> Tensor:
        """Coefficients [K] or [L, K] as [L, K]. Raises InputError on another shape."""
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
        """One task vector as one vector [parameters] over all layers."""
        return torch.cat([stack[task_index].reshape(-1) for stack in self.layers.values()])


def _changed(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: stack for name, stack in layers.items() if bool((stack != 0).any())}
