"""Spearman's rank correlation."""

import numpy as np

from adamerge_core.errors import InputError


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Compute Spearman's rank correlation of two series of numbers [N], in [-1, 1].

    Equal values share the mean of their ranks. A series of equal values has no order and says
    nothing of the other: 0. Raises InputError unless both are [N] finite numbers, N at least 2.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    faults = [
        f"the {name} is of shape {list(each.shape)}: give [N], N at least 2, the same for both"
        for name, each in (("first", one), ("second", other))
        if each.ndim != 1 or len(each) < 2 or each.shape != one.shape
    ]
    faults += [
        f"the {name} holds values that are not finite"
        for name, each in (("first", one), ("second", other))
        if not np.isfinite(each).all()
    ]
    if faults:
        raise InputError.listing("rank correlation", faults)
    # ranks are multiples of a half, so that sums of them, and their mean, are exact
    one, other = (ranks - (len(ranks) + 1) / 2 for ranks in (_ranks(one), _ranks(other)))
    lengths = np.sqrt((one @ one) * (other @ other))
    return float((one @ other) / lengths) if lengths else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value [N], from 1; equal values have the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: np.ndarray = counts.cumsum()
    ranks: np.ndarray = (last - (counts - 1) / 2)[places]
    return ranks
