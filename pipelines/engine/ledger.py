"""The ledger of attempts: which chunk a dead worker was processing, how often, and what to try next."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipelines.engine.gpu_meter import GpuMeter
from pipelines.engine.watchdog import GRACE_S, timed_out

MAX_DEATHS_PER_SAMPLE = 2
"""A sample on which the process died this often, while it worked on nothing else, becomes an error."""
MAX_OTHER_DEATHS = 3
"""Number of deaths outside of any sample after which the chunk fails."""
MAX_SAMPLES_LOST_IN_A_ROW = 3
"""Samples that one worker may lose without completing another one in between."""
MAX_BUILD_DEATHS = 3
"""Number of deaths during the loading of the model after which the run stops."""
MAX_RESULTS_LOST = 5
"""How often a stage of a chunk may be repeated because its result was lost."""

DIED = "the worker process died on this sample"


@dataclass(frozen=True, kw_only=True)
class AttemptPlan:
    """How the next attempt at a stage of a chunk is to proceed."""

    number: int = 1
    one_by_one: bool = False
    """Whether to process the samples one at a time."""
    first: tuple[int, ...] = ()
    """Positions to process first: a process died on them."""
    given_up: Mapping[int, str] = field(default_factory=dict)
    """Position -> reason of its error row."""
    failure: str = ""
    """Why the chunk must fail; empty if it may be tried again."""


@dataclass(kw_only=True)
class _Record:
    """An unfinished chunk at a stage: the running attempt, and what is known about those that died."""

    number: int = 0
    worker: str = ""
    node: str = ""
    at: int | None = None
    """The single sample in progress; None: several samples, or the work before and after them."""
    since_s: float = 0.0
    """When the work in progress began, by the ledger's clock."""
    exit_reason: str = ""
    sample_deaths: Counter[int] = field(default_factory=Counter)
    other_deaths: int = 0
    given_up: dict[int, str] = field(default_factory=dict)

    @property
    def deaths(self) -> int:
        return self.other_deaths + self.sample_deaths.total()


class Ledger:
    """Who works on what, stored where no worker's death reaches it, until that stage of the chunk has ended."""

    def __init__(
        self,
        node_is_lost: Callable[[str], bool] = lambda node: False,
        limit_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        meter: GpuMeter | None = None,
    ) -> None:
        self.node_is_lost = node_is_lost
        self.meter = meter or GpuMeter()
        self.limit_s = limit_s
        self.clock = clock
        self._records: dict[tuple[str, str], _Record] = {}
        self._lost_in_a_row: Counter[str] = Counter()
        """Samples given up since the worker last completed one, by worker."""
        self._builds: Counter[str] = Counter()
        self._done: Counter[tuple[str, str]] = Counter()
        """How often a stage of a chunk was completed: more than once if its result was lost afterwards."""

    def has_died(self, stage: str, chunk: str) -> bool:
        """Whether a process died on this stage of the chunk, or the one that works on it has."""
        return (stage, chunk) in self._records

    def begin(self, stage: str, chunk: str, worker: str, node: str, failed_before: bool = False) -> AttemptPlan:
        """Register a new attempt. If there already is one, its process has died: Ray never runs a task twice at a time.

        Args:
            stage: The stage of the pipeline.
            chunk: Name of the chunk.
            worker: What a dead process shares with its successor: the actor, or the node of a task.
            node: ID of the node of the worker.
            failed_before: Whether the chunk holds only samples that are in errors/ from earlier runs. If they fail
                again, that says nothing about the worker.
        """
        record = self._records.setdefault((stage, chunk), _Record())
        if record.number and not self.node_is_lost(record.node):
            self._blame(record, failed_before)
        failure = self._failure(stage, chunk, record)
        if failure:
            del self._records[stage, chunk]
            self.meter.end(chunk, succeeded=False)
        record.number, record.worker, record.node = record.number + 1, worker, node
        record.at, record.since_s, record.exit_reason = None, self.clock(), ""
        return AttemptPlan(
            number=record.number,
            one_by_one=record.deaths > 0,
            first=tuple(sorted(record.sample_deaths.keys() - record.given_up.keys())),
            given_up=dict(record.given_up),
            failure=failure,
        )

    def sample_started(self, stage: str, chunk: str, number: int, position: int) -> None:
        """Note that the attempt starts on a single sample."""
        if record := self._current(stage, chunk, number):
            record.at, record.since_s = position, self.clock()

    def sample_done(self, stage: str, chunk: str, number: int) -> None:
        """Note that the attempt's single sample is done, which shows that this worker works."""
        if record := self._current(stage, chunk, number):
            record.at, record.since_s = None, self.clock()
            self._lost_in_a_row.pop(record.worker, None)

    def set_exit_reason(self, stage: str, chunk: str, number: int, text: str) -> None:
        """Note why the attempt's process is about to end itself."""
        if record := self._current(stage, chunk, number):
            record.exit_reason = text

    def end(self, stage: str, chunk: str, number: int, succeeded: bool) -> None:
        """Note that the attempt ended without a death: it succeeded, or raised an exception."""
        if record := self._current(stage, chunk, number):
            del self._records[stage, chunk]
            self._done[stage, chunk] += succeeded
            if stage == "publish" or not succeeded:
                self.meter.end(chunk, succeeded)
            if succeeded and not record.deaths:
                self._lost_in_a_row.pop(record.worker, None)

    def build_started(self, worker: str, gpus: float = 0.0) -> int:
        """Note that a worker starts to load its model; returns how often it died doing so since it last succeeded.

        If its last process was over the time limit, that process has timed out but was unable to report it.
        """
        self.meter.hold(worker, gpus)
        for record in self._records.values():
            if record.worker == worker and self.limit_s is not None:
                is_overdue = self.clock() - record.since_s > self.limit_s + GRACE_S
                record.exit_reason = record.exit_reason or (timed_out(self.limit_s) if is_overdue else "")
        self._builds[worker] += 1
        return self._builds[worker] - 1

    def build_done(self, worker: str) -> None:
        """Note that the model is loaded, or that loading it raised an exception."""
        del self._builds[worker]

    def may_begin(self, chunk: str, worker: str, gpus: float) -> bool:
        """Whether the limit of GPU time allows the model of a worker, which holds these GPUs, to begin with a chunk."""
        return self.meter.begin(chunk, worker, gpus)

    def gpu_time_is_spent(self) -> bool:
        """Whether the limit of GPU time allows no other chunk."""
        return self.meter.is_spent

    def gpu_time(self) -> tuple[float, bool]:
        """GPU seconds so far, and whether the limit allows no other chunk and none is in progress."""
        return self.meter.used_s, self.meter.is_over

    def _current(self, stage: str, chunk: str, number: int) -> _Record | None:
        """The record, unless a later attempt has taken the place of this one."""
        record = self._records.get((stage, chunk))
        return record if record and record.number == number else None

    def _blame(self, record: _Record, failed_before: bool) -> None:
        if record.at is None:
            record.other_deaths += 1
            return
        record.sample_deaths[record.at] += 1
        if record.sample_deaths[record.at] >= MAX_DEATHS_PER_SAMPLE:
            record.given_up[record.at] = f"{record.exit_reason or DIED} ({record.number} attempts)"
            self._lost_in_a_row[record.worker] += not failed_before

    def _failure(self, stage: str, chunk: str, record: _Record) -> str:
        """Why the chunk must fail; empty if it may be tried again."""
        done = self._done[stage, chunk]
        if done > MAX_RESULTS_LOST:
            return f"it was completed {done} times and its result was lost each time"
        if record.other_deaths >= MAX_OTHER_DEATHS:
            last = f"; the last time: {record.exit_reason}" if record.exit_reason else ""
            return f"its worker process died {record.deaths} times, and no single sample is to blame{last}"
        lost = self._lost_in_a_row[record.worker]
        if record.deaths and lost >= MAX_SAMPLES_LOST_IN_A_ROW:
            reason = record.exit_reason or "the process died"
            return f"its worker lost {lost} samples in a row and completed none, so they are not to blame: {reason}"
        return ""
