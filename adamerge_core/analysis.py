"""How task vectors lie to each other."""

import torch
from torch import Tensor

from adamerge_core.task_vectors import TaskVectors


def gram_matrix(task_vectors: TaskVectors) -> Tensor:
    """Inner products of the task vectors over all layers: [K, K] float64."""
    count = len(task_vectors.task_names)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for stack in task_vectors.layers.values():
        rows = stack.reshape(count, -1).double().cpu()
        gram += rows @ rows.T
    return gram


def l2_norms(gram: Tensor) -> Tensor:
    """Lengths of the task vectors from their Gram matrix: [K]."""
    return gram.diagonal().sqrt()


def cosine_matrix(gram: Tensor) -> Tensor:
    """Cosines of the task vectors from their Gram matrix: [K, K] in [-1, 1]; 0 for a zero one."""
    norms = l2_norms(gram)
    return gram / torch.outer(norms, norms).clamp_min(torch.finfo(gram.dtype).tiny)
