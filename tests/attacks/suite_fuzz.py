"""x."""

from collections.abc import Iterator
from tests.attacks.cases import Case


def cases() -> Iterator[Case]:
    """Give."""
    yield from ()
