"""Order statistics of the magnitudes of whole task vectors, read layer by layer."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from adamerge_core.errors import InputError
from adamerge_core.task_vectors import TaskVectors

DIGIT_BITS = 16
DIGIT_VALUES = 1 << DIGIT_BITS
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By size in bytes, the integers that the bits of a float are read as."""


def parameter_count(task_vectors: TaskVectors) -> int:
    """The number of entries of one task vector over all layers; reads no layer."""
    return sum(task_vectors.pretrained[name].numel() for name in task_vectors.layers)


def kth_smallest_magnitudes(task_vectors: TaskVectors, ranks: Sequence[int]) -> Tensor:
    """Find the k-th smallest magnitudes of each task vector over all layers, exactly: [K, ranks].

    ranks: each from 1 to the number of parameters; equal magnitudes count as often as they occur.
    Layers of several dtypes are compared in the dtype that torch promotes them to, which is the
    dtype of the result and holds every one of their values. Raises InputError on a rank out of
    range.

    Radix selection: the bits of a non-negative float, read as an integer, grow with its value. So
    a histogram of the upper 16 bits tells which of them the k-th value has, and the next one counts
    the following 16 bits of only the magnitudes that share those. That reads every layer once for
    float16 and bfloat16, twice for float32, four times for float64, and holds one layer's stack and
    a histogram a task and rank at a time.
    """
    count = parameter_count(task_vectors)
    faults = [f"rank {rank}: must be from 1 to {count}" for rank in ranks if not 0 < rank <= count]
    if faults:
        raise InputError.listing("order statistics of the task vectors", faults)
    dtypes = [task_vectors.pretrained[name].dtype for name in task_vectors.layers]
    dtype = reduce(torch.promote_types, dtypes)
    found = [[0] * len(ranks) for _ in task_vectors.task_names]
    remaining = [list(ranks) for _ in task_vectors.task_names]
    for shift in reversed(range(0, 8 * dtype.itemsize, DIGIT_BITS)):
        histograms = _digit_histograms(task_vectors, dtype, shift, found)
        for task, prefixes in enumerate(found):
            for index, prefix in enumerate(prefixes):
                digit, below = _select(histograms[task][prefix], remaining[task][index])
                prefixes[index] = (prefix << DIGIT_BITS) + digit
                remaining[task][index] -= below
    device = next(iter(histograms[0].values())).device
    return torch.tensor(found, dtype=INTEGERS[dtype.itemsize], device=device).view(dtype)


def _digit_histograms(
    task_vectors: TaskVectors, dtype: torch.dtype, shift: int, prefixes: list[list[int]]
) -> list[dict[int, Tensor]]:
    """Count, per task and distinct prefix, the digits that follow it: int64 [DIGIT_VALUES]."""
    highest = shift + DIGIT_BITS == 8 * dtype.itemsize
    histograms: list[dict[int, Tensor]] = [{} for _ in prefixes]
    for stack in task_vectors.layers.values():
        for task, row in enumerate(stack):
            bits = row.reshape(-1).abs().to(dtype).view(INTEGERS[dtype.itemsize]) >> shift
            for prefix in set(prefixes[task]):
                # the highest digit has no prefix, and its sign bit is 0
                inside = bits if highest else bits[bits >> DIGIT_BITS == prefix]
                digits = inside - (prefix << DIGIT_BITS)
                counts = torch.bincount(digits, minlength=DIGIT_VALUES)
                earlier = histograms[task].get(prefix)
                histograms[task][prefix] = counts if earlier is None else earlier + counts
    return histograms


def _select(histogram: Tensor, rank: int) -> tuple[int, int]:
    """Find the digit of the rank-th smallest value, and the number of values below that digit."""
    cumulative = histogram.cumsum(0)
    digit = int(torch.searchsorted(cumulative, rank))
    return digit, int(cumulative[digit] - histogram[digit])
