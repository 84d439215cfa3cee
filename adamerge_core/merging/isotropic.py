"""Isotropic merging: an update whose singular values are all equal (arXiv 2502.04959, section 4).

Neither rule is a sum over tasks: the directions of the common subspace belong to no task. So
neither gives task vectors to learn coefficients over.
"""

import torch
from torch import Tensor

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.merging.registry import merge_rule
from adamerge_core.merging.spectral import merge_updates, polar_factor, thin_svd
from adamerge_core.task_vectors import TaskVectors


@merge_rule(source="arXiv 2502.04959, section 4, Iso-C")
def iso_c(task_vectors: TaskVectors, scaling: float = 1.5) -> StateDict:
    """Add the summed task vectors, scaled, with every singular value replaced by their mean.

    Of a matrix (see spectral.py) with the sum U S V^T the update is mean(S) U V^T; of other layers
    the mean over the tasks. The singular values and their mean are those that are not zero: where
    the sum lacks rank, the published code also fills its null space, in directions that rounding
    decides. One task alone does not give its fine-tuned model, unless its spectrum is flat already.
    scaling: chosen per model on validation data by the authors; 1.5 is what FusionBench's
    documentation uses for ViT-B/32 on eight tasks. Raises InputError if it is not finite.
    """
    return merge_updates(task_vectors, lambda matrices: _flatten(matrices.sum(dim=0)), scaling)


@merge_rule(source="arXiv 2502.04959, section 4, Iso-CTS")
def iso_cts(
    task_vectors: TaskVectors, scaling: float = 1.5, common_share: float = 0.8
) -> StateDict:
    """Apply Iso-C to the top directions of the summed task vectors and the tasks' own directions.

    Of a matrix (see spectral.py) the top singular triplets of the sum are the common subspace; each
    task adds as many of what is left of it outside the common left singular vectors. All left and
    all right singular vectors are then orthogonalised (orthogonal Procrustes) and get one singular
    value, the mean over all of them. Other layers, null spaces and scaling are as in iso_c, to
    which this rule comes down for a common_share of 1, and for one task.

    common_share: the share of a matrix's min(m, n) directions that are common, in [0, 1]; rounded
    so that the tasks' own ones divide by their number, as in the published code, but never to more
    than there are.
    Raises InputError if common_share is outside [0, 1] or scaling is not finite.
    """
    if not 0 <= common_share <= 1:
        raise InputError(
            f"common_share = {common_share}: the share of common directions must be in [0, 1]"
        )
    return merge_updates(task_vectors, lambda matrices: _iso_cts(matrices, common_share), scaling)


def _flatten(matrix: Tensor) -> Tensor:
    u, s, vt = thin_svd(matrix)
    return _mean_of_nonzero(s) * (u @ vt)


def _iso_cts(matrices: Tensor, common_share: float) -> Tensor:
    tasks, side = len(matrices), min(matrices.shape[1:])
    own = min(round((side - int(common_share * side)) / tasks), side // tasks)
    common = side - own * tasks
    u, s, vt = _columns(thin_svd(matrices.sum(dim=0), common))
    remainders = matrices - u @ (u.mT @ matrices)
    norms = torch.linalg.matrix_norm(matrices)  # a remainder of no more than rounding is none
    own_u, own_s, own_v = _columns(thin_svd(remainders, own, norms))
    left = polar_factor(torch.cat([u, *own_u], dim=1))
    right = polar_factor(torch.cat([vt, *own_v], dim=1))
    return _mean_of_nonzero(torch.cat([s, own_s.flatten()])) * (left @ right.mT)


def _columns(svd: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Turn (U, S, V^T) into (U, S, V), whose last dimensions all count the singular values."""
    u, s, vt = svd
    return u, s, vt.mT


def _mean_of_nonzero(values: Tensor) -> Tensor:
    return values.sum() / (values > 0).sum().clamp(min=1)
