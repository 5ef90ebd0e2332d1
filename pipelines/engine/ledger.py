"""The ledger of attempts: which chunk a dead worker was at, how often, and what is tried next."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipelines.engine.watchdog import GRACE_S, timed_out

LONE_DEATHS = 2


OTHER_DEATHS = 3


GIVEN_UP_IN_A_ROW = 3


BUILD_DEATHS = 3


RESULTS_LOST = 5


DIED = "the worker process died on this sample"


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the ledger tells an attempt."""

    number: int = 1
    one_by_one: bool = False
    first: tuple[int, ...] = ()
    """Positions that a process died on."""
    given_up: Mapping[int, str] = field(default_factory=dict)
    """Position -> reason of its error row."""
    hopeless: str = ""
    """Why the chunk must fail."""


@dataclass(kw_only=True)
class _Record:
    """An unfinished chunk at a stage: the attempt that runs, and what is known of those that died."""

    number: int = 0
    worker: str = ""
    node: str = ""
    at: int | None = None
    """The sample being worked on alone; None: several, or what comes before and after them."""
    since_s: float = 0.0
    """When work on it began, by the ledger's clock."""
    last_words: str = ""
    lone_deaths: Counter[int] = field(default_factory=Counter)
    other_deaths: int = 0
    given_up: dict[int, str] = field(default_factory=dict)

    @property
    def deaths(self) -> int:
        return self.other_deaths + self.lone_deaths.total()


class Ledger:
    """Who works on what, kept where no worker's death reaches it, until that stage of the chunk has ended."""

    def __init__(
        self,
        node_is_lost: Callable[[str], bool] = lambda node: False,
        limit_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node_is_lost = node_is_lost
        self.limit_s = limit_s
        self.clock = clock
        self._records: dict[tuple[str, str], _Record] = {}
        self._given_up_in_a_row: Counter[str] = Counter()
        """By worker."""
        self._builds: Counter[str] = Counter()
        self._done: Counter[tuple[str, str]] = Counter()
        """How often a stage of a chunk was done: more than once where its result was lost on its way or later."""

    def begin(self, stage: str, chunk: str, worker: str, node: str, failed_before: bool = False) -> Orders:
        """A new attempt. If there is one already, its process has died: Ray runs no task twice at a time.

        failed_before: the chunk holds nothing but samples that are in errors/ from earlier runs; when they fail again
        that says nothing of the worker.
        """
        record = self._records.setdefault((stage, chunk), _Record())
        if record.number and not self.node_is_lost(record.node):
            self._blame(record, failed_before)
        done = self._done[stage, chunk]
        hopeless = f"it was done {done} times and its result lost" if done > RESULTS_LOST else self._hopeless(record)
        if hopeless:
            del self._records[stage, chunk]
        record.number, record.worker, record.node = record.number + 1, worker, node
        record.at, record.since_s, record.last_words = None, self.clock(), ""
        return Orders(
            number=record.number,
            one_by_one=record.deaths > 0,
            first=tuple(sorted(record.lone_deaths.keys() - record.given_up.keys())),
            given_up=dict(record.given_up),
            hopeless=hopeless,
        )

    def works_on(self, stage: str, chunk: str, number: int, position: int) -> None:
        """The attempt starts on one sample, alone."""
        if record := self._current(stage, chunk, number):
            record.at, record.since_s = position, self.clock()

    def came_through(self, stage: str, chunk: str, number: int) -> None:
        """The sample that the attempt worked on is done: this worker can work."""
        if record := self._current(stage, chunk, number):
            record.at, record.since_s = None, self.clock()
            self._given_up_in_a_row.pop(record.worker, None)

    def last_words(self, stage: str, chunk: str, number: int, text: str) -> None:
        """Why the attempt's process is about to end itself."""
        if record := self._current(stage, chunk, number):
            record.last_words = text

    def end(self, stage: str, chunk: str, number: int, well: bool) -> None:
        """The attempt ended alive: well, or with an exception."""
        if record := self._current(stage, chunk, number):
            del self._records[stage, chunk]
            self._done[stage, chunk] += well
            if well and not record.deaths:
                self._given_up_in_a_row.pop(record.worker, None)

    def build_begins(self, worker: str) -> int:
        """A worker starts to load its model; returns how often it died of that since it last succeeded.

        What its last process worked on for longer than the limit has timed out: it was in no state to say so.
        """
        for record in self._records.values():
            if record.worker == worker and self.limit_s is not None:
                is_overdue = self.clock() - record.since_s > self.limit_s + GRACE_S
                record.last_words = record.last_words or (timed_out(self.limit_s) if is_overdue else "")
        self._builds[worker] += 1
        return self._builds[worker] - 1

    def build_ends(self, worker: str) -> None:
        """The model is loaded, or loading it raised an exception."""
        del self._builds[worker]

    def _current(self, stage: str, chunk: str, number: int) -> _Record | None:
        """The record, unless the attempt was given up for dead meanwhile."""
        record = self._records.get((stage, chunk))
        return record if record and record.number == number else None

    def _blame(self, record: _Record, failed_before: bool) -> None:
        if record.at is None:
            record.other_deaths += 1
            return
        record.lone_deaths[record.at] += 1
        if record.lone_deaths[record.at] >= LONE_DEATHS:
            record.given_up[record.at] = f"{record.last_words or DIED} ({record.number} attempts)"
            self._given_up_in_a_row[record.worker] += not failed_before

    def _hopeless(self, record: _Record) -> str:
        if record.other_deaths >= OTHER_DEATHS:
            why = f", in the end: {record.last_words}" if record.last_words else ""
            return f"its worker process died {record.deaths} times, and no single sample is to blame{why}"
        lost = self._given_up_in_a_row[record.worker]
        if record.deaths and lost >= GIVEN_UP_IN_A_ROW:
            why = record.last_words or "the process died"
            return f"its worker lost {lost} samples in a row and got none through, so they are not to blame: {why}"
        return ""
