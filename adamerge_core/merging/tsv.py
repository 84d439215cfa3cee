"""TSV-Merge: low-rank task vectors with jointly orthogonalised singular vectors."""

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.averaging import task_arithmetic
from adamerge_core.merging.registry import before, merge_rule
from adamerge_core.merging.spectral import as_matrices, is_matrix, polar_factor, thin_svd
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2412.00081, TSV-Merge")
def tsv_m(
    task_vectors: TaskVectors, scaling: float = 1.0, rank_share: float | None = None
) -> StateDict:
    """Add the scaled sum of low-rank task vectors with orthogonalised singular vectors.

    The task vectors and rank_share are those of tsv_decorrelate. scaling: 1 leaves the sum as it
    is; the authors' code evaluates 0.1 to 3. One task alone, with the defaults, gives its
    fine-tuned model.
    """
    return task_arithmetic(tsv_decorrelate(task_vectors, rank_share), scaling)


@before(source="arXiv 2412.00081, TSV-Merge", start=1.0)
def tsv_decorrelate(task_vectors: TaskVectors, rank_share: float | None = None) -> TaskVectors:
    """Cut each task vector to low rank, its singular vectors orthogonal to the other tasks'.

    Of a matrix (see spectral.py) the top singular triplets of each task are kept, U_k S_k V_k^T.
    [U_1 ... U_K] and [V_1 ... V_K] are each replaced by the nearest matrix with orthonormal columns
    (orthogonal Procrustes), cut into tasks again, and multiplied by the old S_k. Other layers
    become tau_k / K. So the coefficient 1 for every task gives TSV-M, with its mean of the layers
    that are no matrices.

    rank_share: the share of a matrix's min(m, n) singular triplets that each task keeps, in (0, 1],
    rounded down; None means 1 / K. At least one is kept, where the authors' code keeps none of a
    matrix with fewer than K. Unlike there, the null space of a task vector that lacks rank takes no
    part in the orthogonalisation. Raises InputError if rank_share is outside (0, 1].
    """
    if rank_share is not None and not 0 < rank_share <= 1:
        raise InputError(
            f"rank_share = {rank_share}: the share of singular triplets to keep must be in (0, 1], "
            "or None for 1 / number of tasks"
        )
    return task_vectors.map_layers(lambda _, stack: _decorrelate(stack, rank_share))


def _decorrelate(stack: Tensor, rank_share: float | None) -> Tensor:
    if not is_matrix(stack):
        return stack / len(stack)
    u, s, vt = _top_triplets(as_matrices(stack), rank_share)
    tasks, rank = s.shape
    left = polar_factor(torch.cat(list(u), dim=1)).split(rank, dim=1)
    right = polar_factor(torch.cat(list(vt), dim=0)).split(rank, dim=0)
    components = [left[k] * s[k] @ right[k] for k in range(tasks)]
    return torch.stack(components).view_as(stack).to(stack.dtype)


def _top_triplets(matrices: Tensor, rank_share: float | None) -> tuple[Tensor, Tensor, Tensor]:
    side = min(matrices.shape[1:])
    rank = side // len(matrices) if rank_share is None else int(rank_share * side)
    return thin_svd(matrices, max(rank, 1))
