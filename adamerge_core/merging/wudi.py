"""WUDI-Merging: least interference of the merged task vector with each task's own."""

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import merge_rule
from adamerge_core.merging.spectral import merge_updates
from adamerge_core.task_vectors import TaskVectors

_MOST_STEPS = 10**6


@merge_rule(source="arXiv 2503.08099")
def wudi(task_vectors: TaskVectors, steps: int = 300, learning_rate: float = 1e-5) -> StateDict:
    """Add the sum of the task vectors, moved by Adam to where it interferes less with each.

    The merged model is theta_pre + tau. Of a matrix (see spectral.py) the loss is
    sum_k ||(tau - tau_k) tau_k^T||^2 / ||tau_k||^2 in Frobenius norms: a task's own vectors stand
    in for the inputs that the layer sees. A task that does not change the layer is left out. One
    task alone gives its fine-tuned model.

    steps, learning_rate: of Adam with betas 0.9 and 0.999, no weight decay; 300 and 1e-5, and the
    squared norm, as in the authors' interference.py (their coef.py divides by the norm itself)
    and in FusionBench. The loss is quadratic and its minimiser known, B G^+ with G and B of
    quadratic_terms. The published iteration is kept: it keeps every entry within about
    steps * learning_rate of the sum, while the minimiser is ill-determined where G is nearly
    singular, and not what the published accuracies are of.

    The authors' code changes the attention and MLP weights of CLIP alone, by name, and leaves the
    rest pretrained; FusionBench's takes every layer of two dimensions, and the mean over the tasks
    of the others. This is the latter, with the layers that spectral.py counts as matrices.
    Raises InputError if steps is not from 1 to 10^6 or learning_rate is not above 0 and finite.
    """
    faults = []
    if not 1 <= steps <= _MOST_STEPS:
        faults.append(f"steps = {steps}: must be a whole number from 1 to {_MOST_STEPS}")
    if not 0 < learning_rate < float("inf"):
        faults.append(f"learning_rate = {learning_rate}: must be above 0 and finite")
    if faults:
        raise InputError.listing("wudi", faults)
    return merge_updates(
        task_vectors, lambda matrices: _minimise(matrices, steps, learning_rate), scaling=1.0
    )


def quadratic_terms(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Compute G [n, n] and B [m, n] of the loss's gradient 2 (tau G - B), from tau_k [K, m, n].

    G = sum_k G_k and B = sum_k tau_k G_k, where G_k = tau_k^T tau_k / ||tau_k||^2. So a step costs
    one product, however many tasks there are.
    """
    gram = matrices.new_zeros(matrices.shape[2], matrices.shape[2])
    target = torch.zeros_like(matrices[0])
    for matrix in matrices:
        norm = torch.linalg.matrix_norm(matrix)
        unit = torch.where(norm > 0, matrix / norm, 0)
        own = unit.T @ unit
        gram += own
        target += matrix @ own
    return gram, target


def _minimise(matrices: Tensor, steps: int, learning_rate: float) -> Tensor:
    gram, target = quadratic_terms(matrices)
    merged = matrices.sum(dim=0).requires_grad_()
    adam = torch.optim.Adam([merged], lr=learning_rate)
    for _ in range(steps):
        merged.grad = 2 * (merged.detach() @ gram - target)
        adam.step()
    return merged.detach()
