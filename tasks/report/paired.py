"""Paired differences between two methods on the same test images, and how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
"""Of images and seeds."""

_TAILS = (0.025, 0.975)

Measured = Sequence[np.ndarray]
"""Of a method which images it got right: per task [seeds, N] bool, the same N images a seed."""


@dataclass(frozen=True)
class Difference:
    """A mean difference in points, and the interval of 95 % of its resamples."""

    points: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(first: Measured, second: Measured, resamples: int = RESAMPLES) -> Difference:
    """Measure how far the first is above the second on average over tasks and seeds.

    The interval is a bootstrap's: images are drawn anew within each task, with replacement, the
    same ones for both methods and for all seeds, and seeds are drawn anew too. An image counts by
    what the two methods did with it in every seed; as few such patterns occur, their numbers are
    drawn, multinomial, which is the same as drawing the images.
    """
    generator = np.random.default_rng(0)
    seeds = len(first[0])
    means, drawn = np.zeros(seeds), np.zeros((resamples, seeds))
    for one, other in zip(first, second, strict=True):
        pairs = one.astype(np.int8) - other.astype(np.int8)
        patterns, counts = np.unique(pairs, axis=1, return_counts=True)
        images = counts.sum()
        means += pairs.mean(axis=1, dtype=np.float64) / len(first)
        again = generator.multinomial(images, counts / images, resamples)
        drawn += again @ patterns.T.astype(np.float64) / (images * len(first))
    weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    resampled = 100 * (weights * drawn).sum(axis=1)
    found = 100 * means.mean(), *np.quantile(resampled, _TAILS)
    # what cancels out is 0, and not the last bit of a sum of floats
    return Difference(*(round(float(value), 9) for value in found))
