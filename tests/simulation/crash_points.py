"""All points at which a command can be stopped: before and after each storage operation, by a kill or a failing call.

Each kind of run is prepared, and the command is stopped at one point. Then the same command runs until its exit code is
0, and the census must be exact. There is one worker and no other randomness, so the points are always the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.simulation.chance import Place
from tests.simulation.commands import Spec
from tests.simulation.contents import Action, Samples
from tests.simulation.events import READS, WRITES
from tests.simulation.play import Played, play
from tests.simulation.scenario import Round, Scenario
from tests.simulation.trace import QUIET

COMMAND = Spec(name="A", workers=1, restarts=0)
SAMPLES: Samples = tuple((f"{number:02d}", 0) for number in range(9))
FAILS = ("02", "05")
POWER_LOSSES = 3
"""Number of ways in which data that is not synced may be torn."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where and how to stop a command."""

    place: Place
    event: str
    what: str
    """Readable description of the operation."""

    def __str__(self) -> str:
        return f"{self.event} at {self.what} ({self.place.who}, {self.place.number})"


def scenarios(form: str) -> dict[str, Scenario]:
    """Return the kinds of runs by name; the command named A is the one to stop."""
    failing = replace(COMMAND, fails=FAILS)
    retry, half = replace(COMMAND, retry_errors=True), replace(COMMAND, retry_errors=True, fails=FAILS[1:])
    limited = replace(COMMAND, limit=6)
    return {
        "first run": _scenario(form, failing),
        "first run, disk": _scenario(form, failing, is_disk=True),
        "limit": _scenario(form, limited),
        "limit, then none": _scenario(form, COMMAND, _before(limited)),
        "none, then limit": _scenario(form, limited, _before(COMMAND)),
        "retry, all succeed": _scenario(form, retry, _before(failing)),
        "retry, all succeed, disk": _scenario(form, retry, _before(failing), is_disk=True),
        "retry, one fails again": _scenario(form, half, _before(failing)),
        "changed": _scenario(form, failing, _before(failing, "change")),
        "changed, disk": _scenario(form, failing, _before(failing, "change"), is_disk=True),
        "added": _scenario(form, COMMAND, _before(COMMAND, "add", "add")),
        "deleted": _scenario(form, COMMAND, _before(failing, "delete")),
        "restored": _scenario(form, COMMAND, _before(COMMAND, "change-all"), _before(COMMAND, "restore")),
        "data deleted by hand": _scenario(form, failing, _before(failing, "delete-data")),
        "nothing to do": _scenario(form, COMMAND, _before(COMMAND)),
    }


def points(scenario: Scenario, all_of_them: bool = True) -> Iterator[Point]:
    """Yield the points at which the command A can be stopped, found by a run without faults.

    Args:
        scenario: The kind of run.
        all_of_them: Whether to include kills at points between which nothing is written.
    """
    calm = play(scenario)
    assert not calm.broken, f"broken without any stop: {calm.details}"
    for place, what, uri in calm.points:
        if place.who.split(".")[0] == COMMAND.name and not QUIET.search(uri):
            for event in _events(scenario, place, what, all_of_them):
                yield Point(place=place, event=event, what=f"{what} {uri}")


def stopped_at(scenario: Scenario, point: Point) -> Played:
    """Play the scenario with a stop at one point."""
    return play(scenario, decisions={point.place: point.event})


def _events(scenario: Scenario, place: Place, what: str, all_of_them: bool) -> Iterator[str]:
    if what.startswith("after ") or place.number == 1 or all_of_them:
        yield f"kill {COMMAND.name}"
    if what in WRITES:
        yield from ("fail", "fail after")
    if what in READS and all_of_them:
        yield "fail"
    if "." in place.who and (what in WRITES or all_of_them):
        yield "die"
    if scenario.is_disk and what.startswith("after "):
        yield from (f"power {number}" for number in range(POWER_LOSSES if all_of_them else 1))


def _scenario(form: str, command: Spec, *before: Round, is_disk: bool = False) -> Scenario:
    """Create a scenario: the command, the same command again, and the same command without a limit."""
    again = Round(commands=(replace(command, name="B"),))
    return Scenario(
        form=form,
        shards=(("a", SAMPLES),),
        rounds=(*before, Round(commands=(command,)), again),
        healer=replace(command, name="H", limit=None),
        page_files=100,
        is_disk=is_disk,
    )


def _before(spec: Spec, *actions: str) -> Round:
    """Create a run, followed by actions of the user."""
    return Round(commands=(replace(spec, name="0"),), actions=tuple(Action(kind=kind, at=4) for kind in actions))
