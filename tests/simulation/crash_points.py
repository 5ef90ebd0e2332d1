"""Every place where a command can be stopped: before and after each storage operation, by a kill or by a failing call.

Each kind of run is prepared, then the command is stopped at one point; the same command is run until it says 0, and the
census must be exact. One worker and no chance otherwise, so the points are the same every time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.simulation.chance import Place
from tests.simulation.commands import Spec
from tests.simulation.contents import Action, Samples
from tests.simulation.play import Played, play
from tests.simulation.scenario import Round, Scenario
from tests.simulation.trace import QUIET
from tests.simulation.world import READS

COMMAND = Spec(name="A", workers=1, restarts=0)
ODD = ("x03", "x06")
"""They always fail."""


def samples(count: int) -> Samples:
    """Some good samples and some that fail."""
    bad = {3: "x03", 6: "x06"}
    return tuple((bad.get(number, f"{number:02d}"), 0) for number in range(count))


def _scenario(form: str, *before: Round, command: Spec = COMMAND, count: int = 9, is_disk: bool = False) -> Scenario:
    healer = replace(command, name="H", limit=None)
    return Scenario(
        form=form,
        shards=(("a", samples(count)),),
        rounds=(*before, Round(commands=(command,))),
        healer=healer,
        page_files=100,
        is_disk=is_disk,
    )


def _first(spec: Spec = COMMAND, *actions: str) -> Round:
    return Round(
        commands=(replace(spec, name="0"),), actions=tuple(Action(kind=kind, at=4) for kind in actions)
    )


def kinds(form: str) -> dict[str, Scenario]:
    """The kinds of runs, by name."""
    retry = replace(COMMAND, retry_errors=True)
    limited = replace(COMMAND, limit=6)
    found = {
        "first run": _scenario(form),
        "first run on a disk": _scenario(form, is_disk=True),
        "limit": _scenario(form, command=limited),
        "limit, then none": _scenario(form, _first(limited)),
        "none, then limit": _scenario(form, _first(), command=limited),
        "retry, all fail again": _scenario(form, _first(), command=retry),
        "changed": _scenario(form, _first(COMMAND, "change")),
        "changed, on a disk": _scenario(form, _first(COMMAND, "change"), is_disk=True),
        "added": _scenario(form, _first(COMMAND, "add", "add")),
        "deleted": _scenario(form, _first(COMMAND, "delete")),
        "all changed, then restored": _scenario(form, _first(COMMAND, "change-all"), _first(COMMAND, "restore")),
        "nothing to do": _scenario(form, _first()),
    }
    return found


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place to stop at."""

    kind: str
    form: str
    place: Place
    event: str
    """`kill A` or `fail`, ..."""
    what: str
    """The operation, for people."""


def points(kind: str, form: str, scenario: Scenario) -> Iterator[Point]:
    """All of them, found by a run that nothing befalls."""
    seen: dict[str, int] = {}
    calm = play(scenario, points=True)
    if calm.broken:
        raise AssertionError(f"{kind}, {form}: broken without any stop: {calm.details}")
