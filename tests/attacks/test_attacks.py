"""The round in the slow tier, a test a room."""

import pytest

from tests.attacks.__main__ import ROOMS, cases
from tests.attacks.runner import run


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_round_has_no_fault(room: str) -> None:
    faults = [f"{case.name}: {fault}" for case, _, fault in run(cases(room)) if fault]
    assert not faults, "\n\n".join(faults)
