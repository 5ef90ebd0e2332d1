"""What becomes of a chunk whose worker died or hung: who is to blame, and how the rest is saved.

Ray gives a task whose process died to another process, for ever. So each stage of a chunk is an attempt that a ledger,
in a process of its own, knows of before it starts:

1. The first attempt does the chunk as a whole.
2. After a death the chunk is done one sample at a time, each noted before it is worked on, those that died before
   first. (A death costs the loading of a model: halving would take log2(n) of them to find what one pass finds.)
3. A sample on which, alone, the process died LONE_DEATHS times is given up: an error row, and the rest goes on. A
   single death, such as that of a preempted machine, gives up nothing; one whose node is lost does not even count.
4. Where it is not the samples the chunk fails, loudly: OTHER_DEATHS deaths outside of any sample, a worker that lost
   GIVEN_UP_IN_A_ROW samples and got none through in between, or a result lost more than RESULTS_LOST times.

A process that works longer than the time limit, on a chunk or on one sample of rule 2, is ended: a death like others.
It ends itself; one that is stopped cannot, and the kernel ends it (`lifeline.py`).
No Ray here: `flow.py` puts the ledger into an actor and says how it is asked.
"""

import faulthandler
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipelines.errors import SampleError
from pipelines.lifeline import end_when_frozen

LONE_DEATHS = 2
OTHER_DEATHS = 3
GIVEN_UP_IN_A_ROW = 3
BUILD_DEATHS = 3
RESULTS_LOST = 5
GRACE_S = 10.0
"""Between the end of the time limit and the end of a process that does not even run its watchdog; as long again
is given to one that runs no thread at all."""
DIED = "the worker process died on this sample"

Ask = Callable[..., Any]
"""`ask(method, *arguments)`: calls a method of the ledger wherever it lives, and waits for its answer."""


class WorkerDeathError(RuntimeError):
    """Processes died again and again, and no sample can be blamed."""


class BrokenProcessError(RuntimeError):
    """This process can be trusted no longer, whatever it works on: raised inside of an attempt, it ends the process."""


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


class Attempt:
    """One try at a stage of a chunk, as the stage sees it. Without a ledger: the first, which nobody watches."""

    def __init__(self, stage: str = "", orders: Orders | None = None, note: Callable[..., None] | None = None) -> None:
        self.stage = stage
        self.orders = orders or Orders()
        self._note = note or (lambda *words: None)
        """`note(position)` before a sample, `note()` after it."""

    @property
    def one_by_one(self) -> bool:
        """Whether samples must be worked on alone, each inside `on`."""
        return self.orders.one_by_one

    def in_order(self, positions: Iterable[int]) -> list[int]:
        """The positions, those that a process died on first: a further death then costs no other sample's work."""
        return sorted(positions, key=lambda position: (position not in self.orders.first, position))

    @contextmanager
    def on(self, position: int) -> Iterator[None]:
        """Around the work on one sample.

        Raises:
            SampleError: it was given up.
        """
        if position in self.orders.given_up:
            raise SampleError(self.stage, self.orders.given_up[position])
        if not self.one_by_one:
            yield
            return
        self._note(position)
        try:
            yield
        except BrokenProcessError:
            raise  # it did not come through
        except Exception:
            self._note()
            raise
        self._note()


@contextmanager
def watched(
    ask: Ask,
    stage: str,
    chunk: str,
    *,
    worker: str,
    node: str,
    failed_before: bool = False,
    limit_s: float | None = None,
) -> Iterator[Attempt]:
    """Around a stage of a chunk, in a worker.

    worker: what a dead process's successor shares with it: the actor, or the machine of a task.
    failed_before: see `Ledger.begin`.

    Raises:
        WorkerDeathError: this chunk was tried often enough.
    """
    _end_when_frozen(limit_s)
    orders: Orders = ask("begin", stage, chunk, worker, node, failed_before)
    if orders.hopeless:
        raise WorkerDeathError(f"{stage} of {chunk}: {orders.hopeless}")
    this = (stage, chunk, orders.number)
    watchdog = Watchdog(limit_s, lambda text: ask("last_words", *this, text))

    def note(position: int | None = None) -> None:
        ask(*(("came_through", *this) if position is None else ("works_on", *this, position)))
        watchdog.start()

    well = False
    watchdog.start()
    try:
        yield Attempt(stage, orders, note)
        well = True
    except BrokenProcessError as broken:
        traceback.print_exc()
        ask("last_words", *this, str(broken))
        os._exit(1)
    finally:
        watchdog.stop()
        ask("end", *this, well)


@contextmanager
def building(ask: Ask, worker: str, limit_s: float | None = None) -> Iterator[None]:
    """Around the loading of a model, in its actor, which Ray restarts for ever.

    limit_s: an actor that is stopped for longer is ended, now or later; loading may take as long as it likes.

    Raises:
        WorkerDeathError: the process died of it BUILD_DEATHS times.
    """
    _end_when_frozen(limit_s)
    deaths = ask("build_begins", worker)
    try:
        if deaths >= BUILD_DEATHS:
            raise WorkerDeathError(f"the worker process died {deaths} times while it loaded the model")
        yield
    finally:
        ask("build_ends", worker)


def timed_out(limit_s: float) -> str:
    """The last words of a process that hangs."""
    return f"timed out after {limit_s:g} s"


def _end_when_frozen(limit_s: float | None) -> None:
    """Later than a watchdog, which says more."""
    if limit_s is not None:
        end_when_frozen(limit_s + 2 * GRACE_S)


class Watchdog:
    """Ends this process when it has worked for too long since the last `start`."""

    def __init__(self, limit_s: float | None, last_words: Callable[[str], None]) -> None:
        self.limit_s = limit_s
        self._last_words = last_words
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Start the clock, anew if it runs."""
        self.stop()
        if self.limit_s is not None:
            self._timer = threading.Timer(self.limit_s, self._bite)
            self._timer.daemon = True
            self._timer.start()
            # Code that hangs without giving threads a turn: this one is native, and tells where in the worker's log.
            faulthandler.dump_traceback_later(self.limit_s + GRACE_S, exit=True, file=2)

    def stop(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            faulthandler.cancel_dump_traceback_later()
            self._timer = None

    def _bite(self) -> None:
        try:
            self._last_words(timed_out(self.limit_s))
            faulthandler.dump_traceback(file=2)
        finally:
            os._exit(1)
