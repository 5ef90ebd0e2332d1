"""Many seeds of many features, simulated in several processes, with a table of broken invariants."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tests.simulation.features import make_scenario, parse
from tests.simulation.play import Played, play

BATCH = 25
"""Number of schedules that a process plays before it reports them."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The enabled features and the form of the input."""

    features: str
    form: str

    def seed(self, number: int) -> str:
        """Return the seed text, which alone determines a schedule."""
        return f"{self.features}/{self.form}/{number}"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some seeds of one kind and their results."""

    kind: Kind
    first: int
    count: int
    broken: tuple[tuple[int, str], ...] = ()
    """Pairs of a seed and what it broke."""


@dataclass(kw_only=True)
class Tally:
    """Totals over all schedules of one kind."""

    kind: Kind
    schedules: int = 0
    broken: dict[int, str] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Add a batch."""
        self.schedules += batch.count
        self.broken |= dict(batch.broken)

    def as_json(self) -> dict[str, object]:
        """Return plain values for a file."""
        return {
            "features": self.kind.features,
            "form": self.kind.form,
            "schedules": self.schedules,
            "broken": {str(number): what for number, what in sorted(self.broken.items())},
        }

    @property
    def line(self) -> str:
        """Format a line of the table."""
        kinds = Counter(what for words in self.broken.values() for what in words.split(", "))
        counts = ", ".join(f"{what}: {count}" for what, count in kinds.most_common(4))
        first = f"first seed {min(self.broken)}; {counts}" if self.broken else ""
        return f"{self.kind.features:28} {self.kind.form:7} {self.schedules:9} {len(self.broken):7}   {first}"


HEADING = f"{'features':28} {'form':7} {'schedules':>9} {'broken':>7}"


def play_seed(kind: Kind, number: int) -> Played:
    """Play one schedule."""
    seed = kind.seed(number)
    return play(make_scenario(seed, parse(kind.features), kind.form), seed=seed)


def play_batch(batch: Batch) -> Batch:
    """Play every seed of a batch."""
    broken: list[tuple[int, str]] = []
    for number in range(batch.first, batch.first + batch.count):
        played = play_seed(batch.kind, number)
        if played.broken:
            broken.append((number, ", ".join(played.broken)))
    return Batch(kind=batch.kind, first=batch.first, count=batch.count, broken=tuple(broken))


def run(
    kinds: Sequence[Kind],
    first: int,
    seeds: int | None,
    minutes: float | None,
    processes: int,
    on_batch: Callable[[Batch], None] = lambda batch: None,
) -> list[Tally]:
    """Play `seeds` schedules of every kind, or as many as fit into `minutes`, with the kinds taking turns by batch.

    Ctrl-C stops it early and keeps what has been played. `on_batch` receives every batch as it finishes.
    """
    tallies = {kind: Tally(kind=kind) for kind in kinds}
    end = None if minutes is None else time.monotonic() + 60 * minutes
    with suppress(KeyboardInterrupt):
        for batch in _played(_until(end, _batches(kinds, first, seeds)), processes):
            tallies[batch.kind].add(batch)
            on_batch(batch)
    return list(tallies.values())


def _played(batches: Iterator[Batch], processes: int) -> Iterator[Batch]:
    """Yield the batches as they finish; only a few are submitted at a time."""
    if processes == 1:
        yield from map(play_batch, batches)
        return
    context = multiprocessing.get_context("spawn")
    number = context.Value("i", 0)
    with ProcessPoolExecutor(processes, context, _prepare, (number,)) as pool:
        waiting = {pool.submit(play_batch, batch) for batch in islice(batches, 2 * processes)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting |= {pool.submit(play_batch, batch) for batch in islice(batches, len(done))}
            yield from (future.result() for future in done)


def _batches(kinds: Sequence[Kind], first: int, seeds: int | None) -> Iterator[Batch]:
    at = first
    while seeds is None or at < first + seeds:
        count = BATCH if seeds is None else min(BATCH, first + seeds - at)
        yield from (Batch(kind=kind, first=at, count=count) for kind in kinds)
        at += count


def _until(end: float | None, batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if end is not None and time.monotonic() > end:
            return
        yield batch


def _prepare(taken: Any) -> None:
    """Leave Ctrl-C to the parent, and pin the process to one core, where switching threads is twice as fast.

    Args:
        taken: Shared counter of the processes that have a core.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with taken.get_lock():
        number, taken.value = taken.value, taken.value + 1
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
