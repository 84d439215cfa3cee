"""Spearman's rank correlation, against its definition written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from adamerge_core.errors import InputError
from adamerge_core.rank_correlation import spearman


def naive(first: list[float], second: list[float]) -> float:
    """Each rank counted, value by value; then Pearson's correlation of the ranks."""

    def ranks(values: list[float]) -> list[float]:
        return [
            sum(other < value for other in values)
            + (sum(other == value for other in values) + 1) / 2
            for value in values
        ]

    one, other = ranks(first), ranks(second)
    mean = (len(one) + 1) / 2
    product = math.fsum((a - mean) * (b - mean) for a, b in zip(one, other, strict=True))
    squares = [math.fsum((a - mean) ** 2 for a in each) for each in (one, other)]
    return product / math.sqrt(squares[0] * squares[1])


@pytest.mark.parametrize("count", [2, 3, 10, 200])
@pytest.mark.parametrize("values", [3, 10**6], ids=["many ties", "no ties"])
def test_it_is_the_correlation_of_the_ranks(count: int, values: int) -> None:
    rng = np.random.default_rng([count, values])
    for _ in range(5):
        first = rng.integers(values, size=count) / 7
        second = first + rng.normal(0, first.std() + 0.1, count).round(1)
        first[0], first[1] = -1.0, 2.0 * values  # not all equal
        second[0], second[1] = -2.0, 3.0 * values
        found = spearman(first, second)
        assert found == pytest.approx(naive(first.tolist(), second.tolist()), abs=1e-12)
        assert found == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


def test_only_the_order_counts() -> None:
    values = np.array([0.1, 0.2, 5.0, 7.0])
    assert spearman(values, np.exp(values)) == pytest.approx(1.0)
    assert spearman(values, -(values**3)) == pytest.approx(-1.0)
    assert spearman(values, np.ones(4)) == 0.0


def test_what_has_no_order_is_an_error() -> None:
    with pytest.raises(InputError, match=r"second is of shape \[2\]"):
        spearman(np.arange(3), np.arange(2))
    with pytest.raises(InputError, match=r"first is of shape \[1\]"):
        spearman(np.arange(1), np.arange(1))
    with pytest.raises(InputError, match="first holds values that are not finite"):
        spearman(np.array([1.0, math.nan]), np.arange(2))
