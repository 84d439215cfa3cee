"""The room `surroundings`: where a project stands, who works in it, what the machine gives."""

from collections.abc import Iterator

from tests.attacks import projects
from tests.attacks.cases import Case
from tests.attacks.surroundings import limits, places, shells, users, variables

PARTS = (places, variables, shells, limits, users)


def cases() -> Iterator[Case]:
    """Give the cases of all parts; the toy project is made before, once for all."""
    projects.hashes()
    for part in PARTS:
        yield from part.cases()
