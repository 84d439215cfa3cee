"""The statistics by name, as merge rules say which they need."""

import numpy as np
from torch import Tensor, nn

from adamerge_core.checkpoints import StateDict
from adamerge_core.errors import InputError
from adamerge_core.statistics.fisher import fisher_diagonal
from adamerge_core.statistics.gram import gram_matrices

KINDS = ("fisher_diagonal", "gram_matrices")


def collect(
    kind: str,
    encoder: nn.Module,
    head: nn.Module,
    images: np.ndarray | Tensor,
    *,
    probes: int,
    seed: int,
    batch_size: int,
) -> StateDict:
    """Collect one of KINDS of a fine-tuned model on images [N, ...] of its task.

    probes and seed are those of fisher_diagonal, batch_size that of gram_matrices. Raises
    InputError for another kind, and what these raise.
    """
    if kind not in KINDS:
        raise InputError(f"statistic {kind!r}: unknown; known are {', '.join(KINDS)}")
    if kind == "fisher_diagonal":
        return fisher_diagonal(encoder, head, images, probes=probes, seed=seed)
    return gram_matrices(encoder, images, batch_size)
