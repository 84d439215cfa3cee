"""Checks that statistics share: of what they are computed from, and of what a rule is given."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adamerge_core.batches import array_fault
from adamerge_core.checkpoints import tensor_fault
from adamerge_core.errors import InputError
from adamerge_core.parameters import count_faults

if TYPE_CHECKING:  # statistics are computed without task vectors
    from adamerge_core.task_vectors import TaskVectors


def check_statistics(
    needed: str,
    task_vectors: "TaskVectors",
    statistics: Mapping[str, Mapping[str, Tensor]],
    shape_for: Callable[[Tensor], tuple[int, ...]],
) -> None:
    """Raise one InputError that lists every statistic that does not fit its task vectors.

    needed: the statistic's name. statistics: state dicts by task. shape_for: a pretrained tensor ->
    the shape of its statistic.
    Faults: a task without statistics, a tensor that is not the model's, that some tasks have and
    others lack, of another shape, or non-finite.
    """
    if not isinstance(statistics, Mapping):
        kind = type(statistics).__name__
        raise InputError(f"{needed} is {kind}: give a dict of state dicts by task name")
    given = {name: statistics[name] for name in task_vectors.task_names if statistics.get(name)}
    faults = [
        f"task {name} has no statistics; compute {needed} with its fine-tuned model and images"
        for name in task_vectors.task_names
        if name not in given
    ]
    everywhere = {tensor: None for state in given.values() for tensor in state}
    for task_name, state in given.items():
        faults += [f"{task_name}: tensor {n} is missing" for n in everywhere if n not in state]
        for name, tensor in state.items():
            fault = _misfit(tensor, task_vectors.pretrained.get(name), shape_for)
            faults += [f"{task_name}: tensor {name} {fault}"] if fault else []
    if faults:
        raise InputError.listing(f"{needed} that does not fit the task vectors", faults)


def _misfit(
    tensor: Tensor, pretrained: Tensor | None, shape_for: Callable[[Tensor], tuple[int, ...]]
) -> str | None:
    fault = tensor_fault(tensor)
    if fault:
        return fault
    if pretrained is None:
        return "is no tensor of the pretrained model"
    if tuple(tensor.shape) != shape_for(pretrained):
        return f"has shape {list(tensor.shape)}, must have {list(shape_for(pretrained))}"
    unfit = int((~torch.isfinite(tensor)).sum())
    return f"has {unfit} non-finite values" if unfit else None


def check_counts(images: np.ndarray | Tensor, counts: Mapping[str, int]) -> None:
    """Raise one InputError unless there are images [N, ...] and every count is one from 1."""
    faults = [line for name, count in counts.items() for line in count_faults(name, count)]
    fault = array_fault(images)
    if fault:
        faults.append(f"images: the value {fault}")
    if faults:
        raise InputError.listing("statistics", faults)
