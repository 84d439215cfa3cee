"""The room `suites`: hostile YAML, numbers, names and paths, up to the last page; odd places."""

import itertools
from collections.abc import Iterator

from tests.attacks.cases import Case
from tests.attacks.suites import fuzz, names, numbers, pages, paths, places, yaml_texts

PARTS = (yaml_texts, numbers, names, paths, pages, places, fuzz)


def cases() -> Iterator[Case]:
    """Give the cases of all parts."""
    return itertools.chain.from_iterable(part.cases() for part in PARTS)
