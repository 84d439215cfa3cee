"""Matrices and their singular vectors, for the rules TSV-M, Iso-C, Iso-CTS and WUDI.

A layer is a matrix [out, in] if it has two dimensions, and [out, in * h * w] if it is a kernel
[out, in, h, w]; out and in must both exceed 1. All other layers (biases, norms, a depthwise kernel
[out, 1, h, w], whose rows meet different inputs and so make up no linear map) are averaged over the
tasks. The published codes know only layers of two dimensions and average every kernel: for a ViT
that concerns the patch embedding alone, in a convolutional network it would leave no matrices.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors
from adamerge_core.widening import widened


def is_matrix(stack: Tensor) -> bool:
    """Whether the shape of a layer's task vectors [K, *shape] makes them matrices."""
    return stack.dim() > 2 and stack.shape[1] > 1 and stack.shape[2] > 1


def as_matrices(stack: Tensor) -> Tensor:
    """Flatten task vectors [K, out, in, ...] to matrices [K, out, in * ...], float32 or wider."""
    return widened(stack).reshape(*stack.shape[:2], -1)


def thin_svd(
    matrices: Tensor, rank: int | None = None, scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose matrices [..., m, n] into U [..., m, r], S [..., r] descending, V^T [..., r, n].

    Singular values that are zero up to rounding have arbitrary singular vectors; these are set to
    zero with the value, so that what is made of them depends on the matrices alone.
    rank: r, the leading triplets wanted, at most min(m, n), which None means.
    scale: [...], what the rounding is relative to; None means the largest singular value.
    Matrices are float32 or float64; in float32 U and V are orthonormal up to 1e-5.
    """
    by_eigenvectors = matrices.dtype == torch.float32
    u, s, vt = (_by_eigenvectors if by_eigenvectors else _by_lapack)(matrices, rank)
    scale = s[..., :1] if scale is None else scale.unsqueeze(-1)
    # null singular values come out as up to 0.5 sqrt(side) eps; those above 2 sqrt(side) eps count
    tolerance = 2 * math.sqrt(max(matrices.shape[-2:])) * torch.finfo(s.dtype).eps
    kept = s > tolerance * scale
    return u * kept.unsqueeze(-2), s * kept, vt * kept.unsqueeze(-1)


def _by_lapack(matrices: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    return u[..., :rank], s[..., :rank], vt[..., :rank, :]


def _by_eigenvectors(matrices: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """float32 -> float32, from the eigenvectors of A^T A (or A A^T, if smaller) in float64.

    Squaring halves the digits, so down to thin_svd's tolerance this is as exact as a decomposition
    in float32. It is faster, most of all for a low rank, and always converges: LAPACK's divide and
    conquer gives up on some large float32 matrices of low rank. Of a batch one by one, because a
    matrix takes several times its memory.
    """
    if matrices.dim() > 2:
        u, s, vt = zip(*(_by_eigenvectors(one, rank) for one in matrices), strict=True)
        return torch.stack(u), torch.stack(s), torch.stack(vt)
    wide = matrices.shape[0] < matrices.shape[1]
    tall = (matrices.mT if wide else matrices).double()
    values, vectors = torch.linalg.eigh(tall.mT @ tall)
    s, v = (part.flip(-1)[..., :rank] for part in (values.clamp_min(0).sqrt(), vectors))
    least = torch.finfo(s.dtype).eps * s[:1]
    u = tall @ v / torch.where(s > least, s, 1.0)
    u, v = (v, u) if wide else (u, v)
    return u.float(), s.float(), v.mT.float()


def polar_factor(matrix: Tensor) -> Tensor:
    """Find the nearest matrix [m, n] with orthonormal columns, or rows if it is wide.

    U V^T of the SVD, the orthogonal Procrustes solution. Of a matrix that lacks rank it is the
    partial isometry of the same row and column space; zero columns stay zero.
    """
    u, _, vt = thin_svd(matrix)
    return u @ vt


def merge_updates(
    task_vectors: TaskVectors, merge_matrices: Callable[[Tensor], Tensor], scaling: float
) -> StateDict:
    """Add a scaled update to each layer: theta_pre + scaling * update.

    merge_matrices: [K, m, n] -> the update [m, n] of a layer that is a matrix; the mean over the
    tasks is the update of the others. Raises InputError if scaling is not finite.
    """
    if not math.isfinite(scaling):
        raise InputError(f"scaling = {scaling}: must be a finite number")
    merged = dict(task_vectors.pretrained)
    for name, stack in task_vectors.layers.items():
        matrices = as_matrices(stack) if is_matrix(stack) else None
        update = stack.mean(dim=0) if matrices is None else merge_matrices(matrices)
        pretrained = merged[name]
        merged[name] = (pretrained + scaling * update.view_as(pretrained)).to(pretrained.dtype)
    return merged
