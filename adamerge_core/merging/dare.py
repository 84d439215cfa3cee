"""DARE: drop entries of the task vectors at random and rescale the rest (arXiv 2311.03099)."""

import hashlib
import json

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.averaging import task_arithmetic
from adamerge_core.merging.registry import before, merge_rule
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2311.03099; github.com/yule-BUAA/MergeLM")
def dare(
    task_vectors: TaskVectors, scaling: float = 0.3, drop: float = 0.9, seed: int = 0
) -> StateDict:
    """Add the scaled sum of the task vectors after dropping entries at random, the rest rescaled.

    drop: the share of the entries to drop, in [0, 1). seed: the seed of the random masks.
    """
    return task_arithmetic(drop_and_rescale(task_vectors, drop, seed), scaling)


@before(source="arXiv 2311.03099; github.com/yule-BUAA/MergeLM")
def drop_and_rescale(task_vectors: TaskVectors, drop: float = 0.9, seed: int = 0) -> TaskVectors:
    """Drop entries of each task vector at random, and divide the rest by 1 - drop.

    This is m tau_k / (1 - drop), every entry of m being 0 with probability `drop`, else 1. The
    expected value of every entry stays as it was. A layer's mask follows from the seed, the task's
    name and the layer's name alone: it is the same at every read, on every device, with any other
    tasks and layers beside it. The published code draws the masks one after another from one
    generator.
    Raises InputError if drop is outside [0, 1).
    """
    if not 0 <= drop < 1:
        raise InputError(f"drop = {drop}: the share of entries to drop must be in [0, 1)")

    def change(layer_name: str, stack: Tensor) -> Tensor:
        return torch.stack(
            [
                torch.where(_mask(row, drop, seed, task_name, layer_name), row / (1 - drop), 0)
                for task_name, row in zip(task_vectors.task_names, stack, strict=True)
            ]
        )

    return task_vectors.map_layers(change)


def _mask(row: Tensor, drop: float, seed: int, task_name: str, layer_name: str) -> Tensor:
    """The mask of the entries that stay: bool, of the shape and device of `row`."""
    digest = hashlib.sha256(json.dumps([seed, task_name, layer_name]).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    return (torch.rand(row.shape, generator=generator) >= drop).to(row.device)
