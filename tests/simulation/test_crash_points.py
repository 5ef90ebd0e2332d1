"""A stop at each point of a run, then the same command until its exit code is 0, then the census."""

import pytest

from tests.simulation.crash_points import points, scenarios, stopped_at

USUAL = {"first run": 1, "limit": 1, "retry, one fails again": 1, "changed": 3, "restored": 3}
"""By kind: the stride with which its points are tried."""
DISK = ("first run, disk", "retry, all succeed, disk", "changed, disk")


def check(kind: str, form: str, all_of_them: bool, every: int = 1) -> None:
    scenario = scenarios(form)[kind]
    tried = list(points(scenario, all_of_them))[::every]
    broken = {str(point): played.details for point in tried if (played := stopped_at(scenario, point)).broken}
    assert broken == {} and tried


@pytest.mark.parametrize("form", ["tar", "folder"])
@pytest.mark.parametrize("kind", USUAL)
def test_a_stop_anywhere_loses_and_doubles_nothing(kind: str, form: str) -> None:
    check(kind, form, all_of_them=False, every=USUAL[kind])


@pytest.mark.parametrize("kind", DISK)
def test_a_loss_of_power_loses_and_doubles_nothing(kind: str) -> None:
    check(kind, "tar", all_of_them=False, every=5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tar", "folder", "jsonl"])
@pytest.mark.parametrize("kind", list(scenarios("tar")))
def test_a_stop_at_all_points_loses_and_doubles_nothing(kind: str, form: str) -> None:
    check(kind, form, all_of_them=True)
