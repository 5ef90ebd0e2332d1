"""The rounds of one run: plan, process what is left or remove what is superseded, and plan again.

Tested in tests/pipelines/runs/test_exactly_once.py and tests/simulation/.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipelines.dataset import layout
from pipelines.dataset.chunk_files import failed_positions
from pipelines.dataset.marks import remove_unmarked
from pipelines.errors import FlowError, MisfitError, SettingError, ShardChangedError
from pipelines.planning.claims import (
    agree_on_chunk_size,
    claim_configuration,
    configuration_hash,
    warn_without_exclusive_creation,
)
from pipelines.planning.finished import MarkReader
from pipelines.planning.plan import Plan, Removal, make_plan
from pipelines.readers.measure import ignored_members
from pipelines.readers.shard_index import MeasuredShard, Shard
from pipelines.readers.shards import modified_since
from pipelines.runs.environment import Environment, Process
from pipelines.runs.interrupts import Interrupted, interrupts_raise
from pipelines.runs.outcome import Outcome
from pipelines.runs.overlap import rotated, runs_at_work
from pipelines.runs.progress import Progress
from pipelines.runs.record import RunRecord
from pipelines.runs.request import Job, RunRequest
from pipelines.samples import Chunk
from pipelines.storage.errors import redacted

MAX_ROUNDS = 20
"""A single run needs at most five; more are needed if other runs or the user change things at the same time."""
MEASURING_ATTEMPTS = 3
"""Attempts to measure an input that changes while it is measured."""


@dataclass(kw_only=True)
class Rounds:
    """The rounds of one run, and its state between them."""

    job: Job
    request: RunRequest
    environment: Environment
    output: str
    record: RunRecord
    progress: Progress = field(init=False)
    trouble: str | None = None
    """Why the work stopped early, if it did."""
    _done: set[str] = field(default_factory=set)
    """Names of the chunks that this run has published."""
    _failed: set[str] = field(default_factory=set)
    """Names of the chunks that this run could not publish: the next run tries them again."""
    _measured: dict[tuple[str, str], MeasuredShard] = field(default_factory=dict)
    _planned: Sequence[MeasuredShard] = ()
    """The shards of the last plan."""
    _marks: MarkReader = field(init=False)
    _chunk_size: int = 0
    _said: set[str] = field(default_factory=set)
    """What `_tell` has said."""
    _others: list[str] = field(default_factory=list)
    """Names of other runs that seem to work on the output at the same time."""

    def __post_init__(self) -> None:
        self.progress = self.environment.new_progress(0)
        self._marks = MarkReader(self.environment.store)

    def work(self, shards: list[Shard], listing: layout.Listing) -> Plan:
        """Run the rounds and return the last plan. Raises SettingError if the input has no samples."""
        with interrupts_raise():
            try:
                return self._rounds(self._first_plan(shards, listing))
            except Interrupted as interrupt:
                self._report_interruption(interrupt)
                raise SystemExit(interrupt.exit_code) from None

    def _rounds(self, plan: Plan) -> Plan:
        with ExitStack() as session:
            process: Process | None = None
            for _ in range(MAX_ROUNDS):
                chunks = [chunk for chunk in plan.chunks if chunk.name not in self._failed]
                if plan.is_complete or self.trouble or (plan.chunks and not chunks):
                    break
                if chunks:
                    process = process or self._open(session, _samples_in(chunks))
                    self._process(rotated(chunks, self.record.name) if self._others else chunks, process)
                else:
                    self._remove(plan.superseded)
                plan = self._plan_again(plan)
        return plan

    def finish(self) -> bool:
        """Write the files beside the data; return whether that succeeded."""
        try:
            finished = layout.list_output(self.output, self.environment.store).finished
            self.job.finish(self.output, finished)
        except (OSError, pa.ArrowException) as error:
            self.environment.say(f"README.md and preview.png cannot be written: {redacted(str(error))}")
            return False
        return True

    def _first_plan(self, shards: list[Shard], listing: layout.Listing) -> Plan:
        tell, store = self.environment.say, self.environment.store
        if self.request.since is not None:
            found, recent = len(shards), modified_since(shards, self.request.since)
            tell(f"{len(recent)} of {found} shards were written since {self.request.since:%Y-%m-%d %H:%M} UTC")
        warn_without_exclusive_creation(store, self.output, self.record.name, tell)
        measured = self._measured_input(shards)
        self._chunk_size = agree_on_chunk_size(store, self.output, self.request.chunk_size, tell)
        plan = self._plan(measured, listing)
        if plan.samples == 0 and not plan.superseded and self.request.since is None:
            raise SettingError(f"the input has {len(shards)} files and no samples in them: nothing to do.")
        self._look_for_others()
        claim_configuration(store, self.output, self.job.settings)
        left = _samples_in(plan.chunks)
        tell(f"{plan.samples} samples in {len(measured)} shards; {plan.samples - left} done before, {left} to do")
        if line := ignored_members(measured):
            tell(line)
        self.record.planned(measured, plan, is_whole=self.request.limit is None and self.request.since is None)
        return plan

    def _look_for_others(self) -> None:
        at_work = runs_at_work(self.environment.store, self.output, self.environment.now())
        self._others = [name for name in at_work if name != self.record.name]
        for name in self._others:
            self.environment.say(
                f"run {name} seems to work on this output too: each skips the chunks that the other has published"
            )

    def _plan_again(self, before: Plan) -> Plan:
        """List the output, find the input and plan again.

        The order matters: a version that was listed before the input was read, and has other content, is older than it.
        """
        listing = layout.list_output(self.output, self.environment.store)
        try:
            return self._plan(self._measured_input(), listing)
        except SettingError as error:  # for example, the input was removed: too late to refuse
            self.trouble = self.trouble or f"the input can no longer be planned: {error}"
            return before

    def _measured_input(self, shards: list[Shard] | None = None) -> list[MeasuredShard]:
        """Measure the current input; repeat it if a shard is rewritten while it is measured."""
        for _ in range(MEASURING_ATTEMPTS):
            try:
                return self._measure(shards or self.job.source.find(self.request.inputs, self.output))
            except ShardChangedError:
                shards = None
        return self._measure(self.job.source.find(self.request.inputs, self.output))

    def _measure(self, shards: list[Shard]) -> list[MeasuredShard]:
        """Return what planning needs to know about the shards; unchanged shards are not measured again."""
        if self.request.since is not None:
            shards = modified_since(shards, self.request.since)
        if self.request.limit is not None:
            return self.job.source.measure(shards, self.output, self.request.limit)
        new = [shard for shard in shards if (shard.uri, shard.fingerprint) not in self._measured]
        for found in self._measured_new(new, shards) if new else ():
            self._measured[found.shard.uri, found.shard.fingerprint] = found
        known = (self._measured.get((shard.uri, shard.fingerprint)) for shard in shards)
        return [found for found in known if found is not None]

    def _measured_new(self, new: list[Shard], shards: list[Shard]) -> list[MeasuredShard]:
        """Measure new shards, or all shards together if the new ones do not fit the others."""
        try:
            return self.job.source.measure(new, self.output, None)
        except MisfitError:
            if len(new) == len(shards):
                raise
            return self.job.source.measure(shards, self.output, None)

    def _plan(self, measured: Sequence[MeasuredShard], listing: layout.Listing) -> Plan:
        self._planned = measured
        configuration = configuration_hash(self.job.settings)
        return make_plan(
            measured, listing, configuration, self._chunk_size, self._marks, self._positions_to_retry, self._waiting
        )

    def _waiting(self, version: layout.Version) -> list[int]:
        return failed_positions(version, self.environment.store, waiting_only=True)

    def _positions_to_retry(self, version: layout.Version) -> list[int]:
        """Return the failed samples of a version to process again: waiting ones, or all with --retry-errors.

        There are none if this run has made the version, so that a run tries each sample once.
        """
        if version.name.text in self._done:
            return []
        if self.request.retry_errors:
            return failed_positions(version, self.environment.store)
        if version.wait and not self.request.give_up:
            return self._waiting(version)
        return []

    def _process(self, chunks: list[Chunk], process: Process) -> None:
        self.progress.total += _samples_in(chunks)
        try:
            for receipt in process(self.job.prepare(self.output, self._planned, chunks)):
                self.progress.add(receipt)
                self._done.add(receipt["chunk"])
                self._tell()
        except FlowError as error:
            self.trouble = str(error)
        self._failed |= {chunk.name for chunk in chunks} - self._done

    def _tell(self) -> None:
        """Say once that compiling failed, and once how long the run will take when the rate of the models is known."""
        use = self.progress.use
        failure = (use.compiling or {}).get("failure")
        said = {"failure": failure and f"compiling failed, so the models run uncompiled: {failure}"}
        if self.progress.left:
            said["forecast"] = use.forecast(self.progress.left, self.request.max_gpu_hours)
        for name, text in said.items():
            if text and name not in self._said:
                self._said.add(name)
                self.progress.end_line()
                self.environment.say(text)

    def _open(self, session: ExitStack, samples: int) -> Process:
        def working(cluster: Any, resources: Any) -> None:
            self.progress.use.resources = resources
            self.record.working(cluster, resources.actors, resources.gpus_per_actor, self.progress)

        executor = self.environment.executor
        job = replace(self.job, samples=samples)
        opened = executor.open(job, self.request, self.output, working, self.progress.note_failure)
        process = session.enter_context(opened)
        session.enter_context(self.progress)
        return process

    def _report_interruption(self, interrupt: Interrupted) -> None:
        """Print what is left, according to a final listing of the output."""
        left = "Some samples may be left"
        if self._chunk_size and self.request.limit is None:
            listing = layout.list_output(self.output, self.environment.store)
            outcome = Outcome.of(self._plan(list(self._measured.values()), listing))
            self.record.counted(outcome.planned, outcome.ok, outcome.bad, len(outcome.missing))
            left = f"{outcome.planned - outcome.done} of {outcome.planned} samples are left"
        self.environment.say(f"\n{interrupt}: stopped. {left}; the same command processes them.")

    def _remove(self, superseded: Sequence[Removal]) -> None:
        """Remove what does not count, marks first: a version that has no mark and can never get one is not in use."""
        store = self.environment.store
        for removal in superseded:
            if not removal.marks and removal.mark_uri and not remove_unmarked(store, removal.mark_uri):
                continue  # it was finished after it was listed
            for uri in (*removal.marks, *removal.files):
                store.remove(uri)


def _samples_in(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.positions) for chunk in chunks)
