"""Rules that give every task vector the same coefficient."""

import torch

from adamerge_core.checkpoints import StateDict
from adamerge_core.merging.registry import merge_rule
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2203.05482, section 2")
def weight_averaging(task_vectors: TaskVectors) -> StateDict:
    """Average the fine-tuned models: every coefficient is 1 / K."""
    return task_arithmetic(task_vectors, scaling=1 / len(task_vectors.task_names))


@merge_rule(source="arXiv 2212.04089, section 2")
def task_arithmetic(task_vectors: TaskVectors, scaling: float = 0.3) -> StateDict:
    """Add the scaled sum of the task vectors: theta_pre + scaling * sum_k tau_k.

    scaling: 0.3 in the paper's experiments.
    """
    coefficients = torch.full((len(task_vectors.task_names),), scaling, dtype=torch.float64)
    return task_vectors.merge(coefficients)
