"""RegMean: per linear layer the least-squares fit to what every fine-tuned one computes."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import merge_rule
from adamerge_core.statistics.checks import check_statistics
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2212.09849", needs="gram_matrices")
def regmean(
    task_vectors: TaskVectors, gram: Mapping[str, StateDict], alpha: float = 0.9
) -> StateDict:
    """Fit each linear layer by least squares to the outputs of all fine-tuned ones.

    W = sum_k W_k G_k (sum_k G_k)^-1 is the W [out, in] that minimises
    sum_k |X_k W^T - X_k W_k^T|^2, with the Gram matrices G_k = X_k^T X_k of the layer's inputs.
    gram: per task the result of statistics.gram_matrices, {name: [in, in]}; a convolution's kernel
    counts as [out, in * height * width]. Layers without it are averaged, biases among them.
    alpha: the factor of the entries off the diagonal of each G_k, in [0, 1]; 0.9 in most of the
    paper's experiments, and 0 leaves a mean weighted by input power.

    The published code inverts the sum, which fails where it is singular (an input that is always
    zero, or alpha = 1 with fewer rows than inputs). The same W is mean + sum_k (W_k - mean) G_k
    (sum_k G_k)^-1; the sum is scaled to a unit diagonal, raised there by 100 sqrt(in) roundings of
    the Gram matrices' dtype, and solved by Cholesky in float64. Directions that no task's inputs
    have stay at the mean.
    Raises InputError if alpha is outside [0, 1], or listing what does not fit (check_statistics).
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha = {alpha}: the factor off the diagonal must be in [0, 1]")
    check_statistics("gram_matrices", task_vectors, gram, _gram_shape)
    merged = dict(task_vectors.pretrained)
    for name in task_vectors.layer_names:
        stack = task_vectors.layers[name]
        mean = stack.mean(dim=0)
        grams = (gram[task][name] for task in task_vectors.task_names if name in gram[task])
        correction = _correction(stack, mean, (_shrunk(each, alpha) for each in grams))
        merged[name] = merged[name] + mean + correction
    return merged


def _gram_shape(weight: Tensor) -> tuple[int, ...]:
    """The shape [in, in] for a weight [out, in] or a kernel [out, in, height, width]."""
    inputs = weight.shape[1:].numel()
    return (inputs, inputs)


def _shrunk(gram: Tensor, alpha: float) -> Tensor:
    return alpha * gram + torch.diag((1 - alpha) * gram.diagonal())


def _correction(stack: Tensor, mean: Tensor, grams: Iterable[Tensor]) -> Tensor:
    """sum_k (W_k - mean) G_k (sum_k G_k)^-1 in the shape and dtype of `mean`; 0 without grams."""
    total, pull = None, None
    for vector, each in zip(stack, grams, strict=False):
        gram = each.to(stack.device, torch.promote_types(each.dtype, stack.dtype))
        deviation = (vector.to(gram.dtype) - mean.to(gram.dtype)).flatten(start_dim=1)
        total = gram if total is None else total + gram
        pull = deviation @ gram if pull is None else pull + deviation @ gram
        rounding = torch.finfo(each.dtype).eps
    if total is None or pull is None:
        return torch.zeros_like(mean)
    shift = 100 * len(total) ** 0.5 * rounding
    return _divide(pull.double(), total.double(), shift).view(mean.shape).to(mean.dtype)


def _divide(pull: Tensor, total: Tensor, shift: float) -> Tensor:
    """pull total^-1 for a symmetric positive semidefinite `total`, 0 along its null space."""
    diagonal = total.diagonal()
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    scaled = scale[:, None] * total * scale
    scaled.diagonal().add_(shift)
    factor = torch.linalg.cholesky(scaled)
    return scale * torch.cholesky_solve((pull * scale).T, factor).T
