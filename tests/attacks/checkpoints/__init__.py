"""The room `checkpoints`: files that are said to be checkpoints, and objects said to be models."""

import itertools
from collections.abc import Iterator

from tests.attacks.cases import Case
from tests.attacks.checkpoints import (
    archives,
    headers,
    lies,
    modules,
    mutations,
    names,
    objects,
    opcodes,
    pickles,
    special_files,
    tensors,
)

PARTS = (
    special_files,
    pickles,
    opcodes,
    lies,
    archives,
    headers,
    names,
    tensors,
    objects,
    mutations,
    modules,
)


def cases() -> Iterator[Case]:
    """Give the cases of all parts."""
    return itertools.chain.from_iterable(part.cases() for part in PARTS)
