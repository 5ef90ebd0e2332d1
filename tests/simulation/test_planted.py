"""The simulation finds deliberate bugs: a test of the tests."""

import pytest

from tests.simulation.planted import FAULTS, MOST_SCHEDULES, Fault, schedules_to_find

EASY = 40
"""Number of schedules within which most faults are found."""
RARE = ("stale listings trusted for removal", "a limit removes what lies beyond it")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name not in RARE], ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    assert schedules_to_find(fault, EASY) is not None


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in RARE], ids=lambda fault: fault.name)
def test_a_planted_fault_that_rarely_shows_is_found(fault: Fault) -> None:
    assert schedules_to_find(fault, MOST_SCHEDULES) is not None
