"""The room `damage`: what a disk, a kill or a hand does to the files around the results."""

from collections.abc import Iterator

from tests.attacks import projects
from tests.attacks.cases import Case
from tests.attacks.damage import (
    cache,
    journals,
    leftovers,
    lock,
    mlflow,
    places,
    prefect,
    whole_runs,
)

PARTS = (cache, lock, journals, mlflow, prefect, places, leftovers, whole_runs)


def cases() -> Iterator[Case]:
    """Give the cases of all parts; the toy project is made before, once for all."""
    projects.hashes()
    for part in PARTS:
        yield from part.cases()
