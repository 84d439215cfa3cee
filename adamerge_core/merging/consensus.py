"""Consensus merging: keep the weights that several tasks use (TALL masks, arXiv 2405.07813)."""

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.averaging import task_arithmetic
from adamerge_core.merging.registry import before, merge_rule
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2405.07813; github.com/nik-dim/tall_masks")
def consensus(
    task_vectors: TaskVectors, scaling: float = 0.3, tall_lambda: float = 0.4, min_tasks: int = 2
) -> StateDict:
    """Add the scaled sum of the task vectors at the weights that several tasks use.

    tall_lambda: how much closer than theta_pre the merge must be for a task to use a weight.
    min_tasks: how many tasks must use it (see consensus_mask).
    """
    return task_arithmetic(consensus_mask(task_vectors, tall_lambda, min_tasks), scaling)


@before(source="arXiv 2405.07813; github.com/nik-dim/tall_masks")
def consensus_mask(
    task_vectors: TaskVectors, tall_lambda: float = 0.4, min_tasks: int = 2
) -> TaskVectors:
    """Set the task vectors to zero at the weights that fewer than `min_tasks` tasks use.

    Task k uses a weight if |tau_k| >= tall_lambda |tau_MTL - tau_k|, with tau_MTL = sum_k tau_k
    (its TALL mask). With 2, the selfish weights (used by one task) and the catastrophic ones (by
    none) go; with 1 only the catastrophic ones.

    The paper chooses a lambda per task on validation data, from 0.2 to 0.6 in steps of 0.1; this is
    data-free, so all tasks share one, by default the middle of that range. The published code
    compares with > where the paper has >=; this is as in the paper, so an entry at which both sides
    are zero counts as used. Raises InputError if tall_lambda is not a number above 0 or min_tasks
    not from 1 to K.
    """
    faults = []
    if not 0 < tall_lambda < float("inf"):
        faults.append(f"tall_lambda = {tall_lambda}: must be above 0 and finite")
    if not 1 <= min_tasks <= len(task_vectors.task_names):
        faults.append(
            f"min_tasks = {min_tasks}: must be from 1 to the {len(task_vectors.task_names)} tasks"
        )
    if faults:
        raise InputError.listing("consensus mask", faults)
    return task_vectors.map_layers(
        lambda _, stack: torch.where(_users(stack, tall_lambda) >= min_tasks, stack, 0)
    )


def _users(stack: Tensor, tall_lambda: float) -> Tensor:
    """The number of tasks that use each weight: [K, *shape] -> int64 [*shape]."""
    others = stack.sum(dim=0) - stack
    return (stack.abs() >= tall_lambda * others.abs()).sum(dim=0)
