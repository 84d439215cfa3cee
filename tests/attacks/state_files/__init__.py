"""The room `state_files`: state and coefficient files, settings, adaptations that go wrong."""

import itertools
from collections.abc import Iterator

from tests.attacks.cases import Case
from tests.attacks.state_files import (
    coefficients,
    going_on,
    inputs,
    merges,
    middles,
    mutations,
    settings,
    states,
)

PARTS = (mutations, states, coefficients, going_on, settings, merges, middles, inputs)


def cases() -> Iterator[Case]:
    """Give the cases of all parts."""
    return itertools.chain.from_iterable(part.cases() for part in PARTS)
