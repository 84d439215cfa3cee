"""Suites: hostile YAML, numbers, names and paths, up to the last page; commands in odd places.

The rooms of its parts are in suite_yaml, suite_names and suite_fuzz.
"""

from collections.abc import Iterator

from tests.attacks import suite_fuzz, suite_names, suite_numbers, suite_places, suite_yaml
from tests.attacks.cases import Case


def cases() -> Iterator[Case]:
    """Give the cases of the room."""
    for part in (suite_yaml, suite_numbers, suite_names, suite_places, suite_fuzz):
        yield from part.cases()
