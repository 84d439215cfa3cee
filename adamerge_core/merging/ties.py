"""Ties-Merging: trim, elect sign, disjoint merge (arXiv 2306.01708)."""

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.averaging import task_arithmetic
from adamerge_core.merging.quantiles import kth_smallest_magnitudes, parameter_count
from adamerge_core.merging.registry import before, merge_rule
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2306.01708, section 4; the sum at 0.3: arXiv 2310.02575")
def ties_merging(task_vectors: TaskVectors, scaling: float = 0.3, keep: float = 0.2) -> StateDict:
    """Trim the task vectors, elect signs, and add the scaled sum of the entries that agree.

    This is theta_pre + scaling * sum_k Phi(tau_k) ("dis-sum"). The sum and 0.3 are those of the
    code published with AdaMerging. The authors of Ties-Merging take the mean of the entries that
    agree ("dis-mean"), and scale it by 0.8 to 2.5.
    keep: the share of each task vector's entries that trimming keeps, in (0, 1].
    """
    return task_arithmetic(trim_and_elect(task_vectors, keep), scaling)


@before(source="arXiv 2306.01708, section 4; arXiv 2310.02575, section 3.2")
def trim_and_elect(task_vectors: TaskVectors, keep: float = 0.2) -> TaskVectors:
    """Trim each task vector and mask it where it disagrees with the elected sign: Phi(tau_k).

    Trim: one threshold a task vector over all of its parameters. Elect: the sign of the sum of the
    trimmed vectors; where that is zero, the sign that the majority of parameters has. This is what
    AdaMerging++ learns coefficients over. Raises InputError if keep is outside (0, 1].
    """
    _check(keep)
    if not task_vectors.layers:  # no task changed anything
        return task_vectors
    thresholds = trim_thresholds(task_vectors, keep)
    # counted in integers: a sum of signs overflows float16
    signs = [
        _elected(_trim(stack, thresholds)).sum(dtype=torch.int64)
        for stack in task_vectors.layers.values()
    ]
    majority = torch.sign(torch.stack(signs).sum())
    return task_vectors.map_layers(
        lambda _, stack: _mask_disagreeing(_trim(stack, thresholds), majority)
    )


def trim(task_vectors: TaskVectors, keep: float = 0.2) -> TaskVectors:
    """Set all but the largest entries of each task vector to zero: trim_and_elect's first step.

    Raises InputError if keep is outside (0, 1].
    """
    thresholds = trim_thresholds(task_vectors, keep)
    return task_vectors.map_layers(lambda _, stack: _trim(stack, thresholds))


def trim_thresholds(task_vectors: TaskVectors, keep: float) -> Tensor:
    """Find the smallest magnitude that trimming keeps of each task vector: [K].

    With n floating entries in the state dict it is the (n - floor(keep n))-th smallest magnitude,
    and entries equal to it stay, as in the authors' code. There, as here, the zeros of tensors that
    no task changed count too: a text tower that lies beside the image tower lets more of that stay.
    Raises InputError if keep is outside (0, 1].
    """
    _check(keep)
    floating = [each for each in task_vectors.pretrained.values() if each.is_floating_point()]
    count = sum(tensor.numel() for tensor in floating)
    unchanged = count - parameter_count(task_vectors)
    rank = max(count - int(keep * count), 1) - unchanged  # the zeros are the smallest
    thresholds = kth_smallest_magnitudes(task_vectors, [max(rank, 1)])[:, 0]
    return thresholds if rank > 0 else torch.zeros_like(thresholds)


def _check(keep: float) -> None:
    if not 0 < keep <= 1:
        raise InputError(f"keep = {keep}: the share of entries to keep must be in (0, 1]")


def _trim(stack: Tensor, thresholds: Tensor) -> Tensor:
    per_task = thresholds.view(-1, *[1] * (stack.dim() - 1))
    return torch.where(stack.abs() >= per_task, stack, 0)


def _elected(stack: Tensor) -> Tensor:
    return torch.sign(stack.sum(dim=0))


def _mask_disagreeing(stack: Tensor, majority: Tensor) -> Tensor:
    elected = _elected(stack)
    elected = torch.where(elected == 0, majority, elected)
    return torch.where(stack * elected > 0, stack, 0)
