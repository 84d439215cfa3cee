"""The room `images`: image files, folders and tables of them, archives, arrays, and who calls."""

import itertools
from collections.abc import Iterator

from tests.attacks.cases import Case
from tests.attacks.images import (
    archives,
    arrays,
    callers,
    formats,
    layouts,
    limits,
    mutations,
    names,
    pixels,
    special_files,
    tables,
)

PARTS = (
    formats,
    special_files,
    limits,
    pixels,
    names,
    layouts,
    tables,
    archives,
    arrays,
    callers,
    mutations,
)


def cases() -> Iterator[Case]:
    """Give the cases of all parts."""
    return itertools.chain.from_iterable(part.cases() for part in PARTS)
