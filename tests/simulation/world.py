"""The events at the points of a simulated run: thread switches, failing calls, process deaths, actions of the user.

Each storage call is a point before it takes effect and, if it writes, another one after, as its response may be lost.
`Chance` makes all decisions, so a run can be replayed from them.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pipelines.storage.errors import StorageError
from tests.simulation.chance import Chance, Place
from tests.simulation.events import CALM, STALE_PAGES, Rates, Situation, draw_event, most_likely_none
from tests.simulation.objects import Objects
from tests.simulation.scheduler import Scheduler, Thread

Apply = Callable[[], None]


class Step(NamedTuple):
    """A line of the trace."""

    number: int
    who: str
    what: str
    uri: str = ""
    result: str = ""


class Process(Protocol):
    """A running command."""

    name: str
    is_dead: bool

    def die(self, spares_workers: bool) -> list[Thread]:
        """Kill the process and return the threads that die with it."""
        ...


class World:
    """The storage, the threads, and the events that affect them."""

    def __init__(self, chance: Chance, objects: Objects | None = None) -> None:
        self.chance = chance
        self.objects = objects or Objects()
        self.scheduler = Scheduler(self._choose)
        self.rates = CALM
        self.trace: list[Step] = []
        self.points: list[tuple[Place, str, str]] = []
        """(place, operation, URI) of every point so far."""
        self.step = 0
        self.processes: list[Process] = []
        """Running commands."""
        self.owners: dict[Thread, Process] = {}
        self.actions: list[Callable[[], None]] = []
        """Pending actions of the user, in order."""
        self.kills_left = 0
        self.lose_power: Callable[[int], None] = lambda number: None
        """Applies a power loss to the storage."""
        self.last_ghost_write = -1
        """Step of the last write by a dead command: by a worker that outlived it, or a write that took effect late."""
        self.watch: Callable[[str, str], None] = lambda what, uri: None
        """Called before every write that takes effect."""
        self._views: dict[Thread | None, tuple[int | None, int]] = {}
        """By thread: the number of changes that it sees, and the number of listing pages for which that holds."""
        self._none_from = 0.0
        self._under_way: dict[Thread, tuple[str, str, Apply]] = {}
        self._late: list[tuple[str, str, Apply]] = []

    def set_rates(self, rates: Rates) -> None:
        """Set the probabilities of events from now on."""
        self.rates, self.kills_left, self._none_from = rates, rates.kills, most_likely_none(rates)

    def note(self, who: str, what: str, uri: str = "", result: str = "") -> None:
        """Add a line to the trace."""
        self.trace.append(Step(self.step, who, what, uri, result))

    def pause(self, what: str) -> None:
        """Mark a point that is not a storage call, such as the work of a model."""
        self._point(what, "")

    def decide(self, what: str, draw: Callable[[random.Random], str]) -> str:
        """Make a decision in the current thread that is not an event."""
        thread = self.scheduler.current
        if thread is None:
            return ""
        thread.points += 1
        return self.chance.decide(Place(thread.name, thread.points, what), draw)

    def read(self, what: str, uri: str) -> None:
        """Mark a point before a reading call.

        Raises:
            StorageError: The call fails.
        """
        if self._point(what, uri).startswith("fail"):
            self._fail(what, uri)

    def stale_view(self) -> int | None:
        """Return how many changes the next listing page of the current thread shows; None means all."""
        changes, pages = self._views.get(self.scheduler.current, (None, 0))
        if pages:
            self._views[self.scheduler.current] = changes, pages - 1
        return changes if pages else None

    def write(self, what: str, uri: str, apply: Apply) -> None:
        """Perform a writing call, which takes effect atomically by `apply`.

        Raises:
            StorageError: The call fails, with or without having taken effect.
        """
        thread = self.scheduler.current
        if thread is None:
            self._apply("main", what, uri, apply)
            return
        self.scheduler.check()
        self._under_way[thread] = what, uri, apply
        try:
            event = self._point(what, uri)
        finally:
            del self._under_way[thread]
        if event == "fail late":
            self._late.append((what, uri, apply))
        if event in ("fail", "fail late"):
            self._fail(what, uri)
        self._apply(thread.name, what, uri, apply, "response lost" if event else "")
        owner = self.owners.get(thread)
        if owner is not None and owner.is_dead:
            self.last_ghost_write = self.step
        if event:
            self._fail(what, uri, noted=False)
        self._point(f"after {what}", uri)

    def kill(self, process: Process, spares_workers: bool = False, late: bool = False) -> None:
        """Kill a process; with `late`, the pending writes of its threads take effect later."""
        self.note(process.name, "is killed", result="its workers live on" if spares_workers else "")
        for thread in process.die(spares_workers):
            self.end(thread, late)

    def end_current(self, why: str) -> None:
        """Let the process of the current thread die."""
        thread = self.scheduler.current
        if thread is not None:
            self.note(thread.name, why)
            self.end(thread)
            self.scheduler.check()

    def end(self, thread: Thread, late: bool = False) -> None:
        """Let the process of one thread die."""
        if late and thread in self._under_way:
            self._late.append(self._under_way[thread])
        self.scheduler.kill(thread)

    def settle(self) -> None:
        """Apply all pending writes and perform the remaining actions of the user."""
        while self._late:
            self._land()
        while self.actions:
            self._act()

    def _apply(self, who: str, what: str, uri: str, apply: Apply, result: str = "") -> None:
        self.note(who, what, uri, result)
        self.watch(what, uri)
        apply()

    def _fail(self, what: str, uri: str, noted: bool = True) -> None:
        if noted and self.scheduler.current is not None:
            self.note(self.scheduler.current.name, what, uri, "fails")
        raise StorageError(f"the storage is unavailable: {what} {uri}", "unreachable")

    def _land(self) -> None:
        what, uri, apply = self._late.pop(0)
        self.last_ghost_write = self.step
        self._apply("late", what, uri, apply)

    def _act(self) -> None:
        self.actions.pop(0)()

    def _point(self, what: str, uri: str) -> str:
        """Make one decision, and return the event if the caller has to carry it out."""
        thread = self.scheduler.current
        self.step += 1
        if thread is None:
            return ""
        self.scheduler.check()
        thread.points += 1
        place = Place(thread.name, thread.points, "point")
        self.points.append((place, what, uri))
        event = self.chance.decide(place, lambda rng: self._draw(rng, thread, what))
        if not event:
            return ""
        kind, _, rest = event.partition(" ")
        if kind == "switch":
            self.scheduler.give_way(self._named(rest))
            return ""
        if kind == "fail":
            return event
        self._happen(thread, kind, rest)
        self.scheduler.check()
        return ""

    def _happen(self, thread: Thread, kind: str, rest: str) -> None:
        if kind == "act" and self.actions:
            self._act()
        elif kind == "land" and self._late:
            self._land()
        elif kind == "die":
            self.note(thread.name, "its process dies")
            self.end(thread, late="late" in rest)
        elif kind == "stale":
            self._views[thread] = max(self.objects.changes - int(rest), 0), STALE_PAGES
        elif kind == "power":
            self.kills_left -= 1
            self._power_off(int(rest))
        elif kind == "kill":
            self.kills_left -= 1
            name, *how = rest.split(" ")
            for process in [process for process in self.processes if process.name == name and not process.is_dead]:
                self.kill(process, "zombies" in how, "late" in how)

    def _power_off(self, number: int) -> None:
        self.note("power", "is lost")
        self._late.clear()
        for process in [process for process in self.processes if not process.is_dead]:
            self.kill(process)
        for thread in list(self._under_way):
            self.scheduler.kill(thread)
        self.lose_power(number)

    def _named(self, name: str) -> Thread | None:
        return next((thread for thread in self.scheduler.threads if thread.name == name), None)

    def _draw(self, rng: random.Random, thread: Thread, what: str) -> str:
        roll = rng.random()
        if roll >= self._none_from:
            return ""
        alive = [process.name for process in self.processes if not process.is_dead] if self.kills_left > 0 else []
        situation = Situation(
            what=what,
            is_worker="." in thread.name,
            others=[other.name for other in self.scheduler.ready() if other is not thread],
            commands=alive,
            may_act=bool(self.actions),
            may_land=bool(self._late),
        )
        return draw_event(rng, self.rates, roll, situation)

    def _choose(self, thread: Thread | None, ready: Sequence[Thread]) -> Thread:
        """Choose the thread that continues when a thread ends or waits."""
        if len(ready) == 1:
            return ready[0]
        place = Place(thread.name if thread else "", thread.points if thread else self.step, "next")
        if thread is not None:
            thread.points += 1
        draw = (lambda rng: rng.choice(ready).name) if self.rates.switch_at_writes else (lambda rng: "")
        name = self.chance.decide(place, draw)
        return next((other for other in ready if other.name == name), ready[0])
