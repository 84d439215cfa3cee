"""Model Breadcrumbs: mask small entries and outliers of the task vectors (arXiv 2312.06795)."""

import math

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.averaging import task_arithmetic
from adamerge_core.merging.registry import before, merge_rule
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2312.06795; github.com/rezazzr/breadcrumbs")
def breadcrumbs(
    task_vectors: TaskVectors, scaling: float = 0.3, beta: float = 0.85, gamma: float = 0.994
) -> StateDict:
    """Add the scaled sum of the task vectors without their small entries and outliers.

    beta, gamma: the quantiles of each layer's magnitudes between which entries stay (see
    mask_tails).
    """
    return task_arithmetic(mask_tails(task_vectors, beta, gamma), scaling)


@before(source="arXiv 2312.06795; github.com/rezazzr/breadcrumbs")
def mask_tails(task_vectors: TaskVectors, beta: float = 0.85, gamma: float = 0.994) -> TaskVectors:
    """Set the smallest and the largest magnitudes in each layer of each task vector to zero.

    The smallest `beta` of the entries and the largest 1 - `gamma` are masked: with n entries, those
    from the (floor(beta n) + 1)-th to the ceil(gamma n)-th smallest magnitude stay, and entries
    equal to either end stay. So a layer never loses all entries, and a scalar stays.

    A layer is a whole tensor, as in the paper. The published code ranks within each last dimension
    instead, and there beta is the share that stays and gamma the share of outliers; its search
    starts at 0.15 and 0.006, which are beta = 0.844 and gamma = 0.994 here. Others (mergekit) name
    the two the other way round. Raises InputError unless 0 <= beta < gamma <= 1.
    """
    if not 0 <= beta < gamma <= 1:
        raise InputError(
            f"beta = {beta}, gamma = {gamma}: the quantiles between which entries stay must fit "
            "0 <= beta < gamma <= 1"
        )
    return task_vectors.map_layers(lambda _, stack: _mask(stack, beta, gamma))


def _mask(stack: Tensor, beta: float, gamma: float) -> Tensor:
    magnitudes = stack.abs().flatten(1) if stack.dim() > 1 else stack.abs().unsqueeze(1)
    count = magnitudes.shape[1]
    lowest = magnitudes.kthvalue(math.floor(beta * count) + 1, dim=1, keepdim=True).values
    highest = magnitudes.kthvalue(math.ceil(gamma * count), dim=1, keepdim=True).values
    stays = (magnitudes >= lowest) & (magnitudes <= highest)
    return torch.where(stays.view(stack.shape), stack, 0)
