"""One run of a job, from the checks to the exit code. What the job does is in its `Flow`; everything else is here.

A run goes on in rounds: find, list and plan; process what is to do, or else remove what is superseded; find, list and
plan again. It says that it is done (exit code 0) only when a plan made after all of its work leaves nothing to do and
nothing to remove. So whatever another run, a killed one or the user has done meanwhile is seen.
"""

import dataclasses
import errno
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import layout, storage
from pipelines.claims import (
    agree_on_chunk_size,
    check_configurations,
    claim_configuration,
    configuration_hash,
    warn_without_exclusive_creation,
)
from pipelines.environment import Environment, Process
from pipelines.errors import FlowError, SettingError
from pipelines.finished import MarkReader
from pipelines.inputs import Shard
from pipelines.interrupts import Interrupted, interrupts_raise
from pipelines.measure import Measured
from pipelines.plan import Plan, Removal, make_plan
from pipelines.progress import Progress
from pipelines.publish import failed_positions
from pipelines.request import Job, Request
from pipelines.run_report import EXIT_INCOMPLETE, EXIT_OK, Outcome, exit_code, report
from pipelines.runs import RunRecord, command_line, recorded
from pipelines.samples import Chunk
from pipelines.since import modified_since
from pipelines.storage_errors import StorageError, redacted

__all__ = ["EXIT_INCOMPLETE", "EXIT_OK", "Interrupted", "Job", "Request", "check_output", "interrupts_raise", "run_job"]
MAX_ROUNDS = 20
"""A run alone needs five at most; further ones are for what other runs and the user do at the same time."""
WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What a disk says to a setting rather than to a moment."""


def run_job(job: Job, request: Request, environment: Environment | None = None) -> int:
    """Check, plan, run, verify, report; returns the exit code.

    Raises:
        SettingError: before any worker starts.
    """
    environment = environment or Environment()
    output = check_output(request.output)
    try:
        return _run(job, request, environment, output)
    except OSError as error:
        environment.say(f"stopped: {redacted(str(error))}\nThe same command goes on where this one stopped.")
        return EXIT_INCOMPLETE


def _run(job: Job, request: Request, environment: Environment, output: str) -> int:
    environment.say("reading the input list ...")
    shards = job.source.find(request.inputs, output)
    _claim_output(job, environment, output)
    with recorded(output, _about(job, request), environment) as record:
        run = _Run(job=job, request=request, environment=environment, output=output, record=record)
        plan = run.work(shards)
        outcome = Outcome.of(plan)
        record.counted(outcome.planned, outcome.ok, outcome.bad, len(outcome.missing))
        record.trouble = run.trouble
        record.exit_code = exit_code(outcome, request.max_error_rate)
        if plan.is_complete and not run.finish():
            record.exit_code = EXIT_INCOMPLETE
        report(job, request, output, outcome, run.progress, run.trouble, environment.say)
    environment.afterwards(output)
    return record.exit_code


def _claim_output(job: Job, environment: Environment, output: str) -> None:
    """See that the output is of this configuration, or nobody's. The first write: it finds an unwritable output."""
    store, settings = environment.store, dict(job.settings)
    listing = layout.list_output(output, store)
    found = {version.name.configuration for version in listing.finished}
    check_configurations(store, output, found, configuration_hash(settings), settings)
    try:
        claim_configuration(store, output, settings)
        warn_without_exclusive_creation(store, output, environment.new_id(), environment.say)
    except SettingError:
        raise
    except Exception as error:  # every storage driver has its own exceptions for "you may not"
        if isinstance(error, OSError) and not _is_refusal(error):
            raise
        raise SettingError(
            f"--output {output} cannot be written: {type(error).__name__}: {error}. Check the path and "
            "the permissions; credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)."
        ) from error


def _is_refusal(error: OSError) -> bool:
    """Whether the storage refuses this place or these credentials, and would refuse them again."""
    if isinstance(error, StorageError):
        return error.kind in ("credentials", "denied", "bucket", "region")
    return error.errno in WRONG_PLACE


def _about(job: Job, request: Request) -> dict[str, Any]:
    """What the record of a run says before anything is planned."""
    options = {name: value for name, value in dataclasses.asdict(request).items() if name not in ("inputs", "output")}
    return {
        "job": job.name,
        "command": command_line(),
        "inputs": list(request.inputs),
        "output": request.output,
        "options": options | {"since": request.since.isoformat() if request.since else None},
        "settings": dict(job.settings),
        "configuration": configuration_hash(job.settings),
        "row_format": job.row_format.name,
    }


@dataclass(kw_only=True)
class _Run:
    """The rounds of one run, and what it remembers between them."""

    job: Job
    request: Request
    environment: Environment
    output: str
    record: RunRecord
    progress: Progress = field(init=False)
    trouble: str | None = None
    """Why the work stopped early, if it did."""
    _done: set[str] = field(default_factory=set)
    """Names of the chunks that this run has published."""
    _failed: set[str] = field(default_factory=set)
    """Names of those that it could not: the next run tries again."""
    _measured: dict[tuple[str, str], Measured] = field(default_factory=dict)
    _marks: MarkReader = field(init=False)
    _chunk_size: int = 0

    def __post_init__(self) -> None:
        self.progress = self.environment.new_progress(0)
        self._marks = MarkReader(self.environment.store)

    def work(self, shards: list[Shard]) -> Plan:
        """Round after round; returns the last plan. Raises SettingError where the input has no samples."""
        with interrupts_raise():
            try:
                return self._rounds(self._first_plan(shards))
            except Interrupted as interrupt:
                self._say_stopped(interrupt)
                raise SystemExit(interrupt.exit_code) from None

    def _rounds(self, plan: Plan) -> Plan:
        with ExitStack() as session:
            process: Process | None = None
            for _ in range(MAX_ROUNDS):
                chunks = [chunk for chunk in plan.chunks if chunk.name not in self._failed]
                if plan.is_complete or self.trouble or (plan.chunks and not chunks):
                    break
                if chunks:
                    process = process or self._open(session)
                    self._process(chunks, process)
                else:
                    self._remove(plan.superseded)
                plan = self._plan_again(plan)
        return plan

    def finish(self) -> bool:
        """Write what lies beside the data; False where that failed."""
        try:
            finished = layout.list_output(self.output, self.environment.store).finished
            self.job.finish(self.output, sum(each.ok for each in finished), sum(each.bad for each in finished))
        except (OSError, pa.ArrowException) as error:
            self.environment.say(f"README.md and preview.png cannot be written: {redacted(str(error))}")
            return False
        return True

    def _first_plan(self, shards: list[Shard]) -> Plan:
        tell = self.environment.say
        if self.request.since is not None:
            found, recent = len(shards), modified_since(shards, self.request.since)
            tell(f"{len(recent)} of {found} shards were written since {self.request.since:%Y-%m-%d %H:%M} UTC")
        measured = self._measure(shards)
        self._chunk_size = agree_on_chunk_size(self.environment.store, self.output, self.request.chunk_size, tell)
        plan = self._plan(measured)
        if plan.samples == 0 and not plan.superseded and self.request.since is None:
            raise SettingError(f"the input has {len(shards)} files and not one sample in them: nothing to do.")
        left = _samples_in(plan.chunks)
        tell(f"{plan.samples} samples in {len(measured)} shards; {plan.samples - left} done before, {left} to do")
        self.record.planned(measured, plan, is_whole=self.request.limit is None and self.request.since is None)
        return plan

    def _plan_again(self, before: Plan) -> Plan:
        """Find, list and plan once more."""
        try:
            return self._plan(self._measure(self.job.source.find(self.request.inputs, self.output)))
        except SettingError as error:  # the input has gone, say: too late for a refusal
            self.trouble = self.trouble or f"the input can no longer be planned: {error}"
            return before

    def _measure(self, shards: list[Shard]) -> list[Measured]:
        """What planning must know of the shards; of those that are as they were it is known already."""
        if self.request.since is not None:
            shards = modified_since(shards, self.request.since)
        if self.request.limit is not None:
            return self.job.source.measure(shards, self.output, self.request.limit)
        new = [shard for shard in shards if (shard.uri, shard.fingerprint) not in self._measured]
        for found in self.job.source.measure(new, self.output, None) if new else ():
            self._measured[found.shard.uri, found.shard.fingerprint] = found
        known = (self._measured.get((shard.uri, shard.fingerprint)) for shard in shards)
        return [found for found in known if found is not None]

    def _plan(self, measured: Sequence[Measured]) -> Plan:
        listing = layout.list_output(self.output, self.environment.store)
        configuration = configuration_hash(self.job.settings)
        retry = self._positions_to_retry if self.request.retry_errors else None
        return make_plan(measured, listing, configuration, self._chunk_size, self._marks, retry)

    def _positions_to_retry(self, version: layout.Version) -> list[int]:
        """The failed samples of a version, unless this run has made it."""
        return [] if version.name.text in self._done else failed_positions(version, self.environment.store)

    def _process(self, chunks: list[Chunk], process: Process) -> None:
        self.progress.total += _samples_in(chunks)
        try:
            for receipt in process(chunks):
                self.progress.add(receipt)
                self._done.add(receipt["chunk"])
        except FlowError as error:
            self.trouble = str(error)
        self._failed |= {chunk.name for chunk in chunks} - self._done

    def _open(self, session: ExitStack) -> Process:
        def working(cluster: Any, resources: Any) -> None:
            self.record.working(cluster, resources.actors, resources.gpus_per_actor, self.progress)

        executor = self.environment.executor
        opened = executor.open(self.job, self.request, self.output, working, self.progress.note_failure)
        process = session.enter_context(opened)
        session.enter_context(self.progress)
        return process

    def _say_stopped(self, interrupt: Interrupted) -> None:
        """Say what is left, by a last look at the output."""
        left = "What is left"
        if self._chunk_size and self.request.limit is None:
            outcome = Outcome.of(self._plan(list(self._measured.values())))
            self.record.counted(outcome.planned, outcome.ok, outcome.bad, len(outcome.missing))
            left = f"{outcome.planned - outcome.done} of {outcome.planned} samples are left"
        self.environment.say(f"\n{interrupt}: stopped. {left}; the same command does them.")

    def _remove(self, superseded: Sequence[Removal]) -> None:
        """Remove what does not count, marks first: a version without its mark is nobody's."""
        store = self.environment.store
        for removal in superseded:
            if not removal.marks and removal.mark_uri and store.exists(removal.mark_uri):
                continue  # it was finished since it was listed
            for uri in (*removal.marks, *removal.files):
                store.remove(uri)


def _samples_in(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.positions) for chunk in chunks)


def check_output(uri: str) -> str:
    """The output root, normalised. Raises SettingError where workers could not write."""
    output = storage.normalise(uri)
    if storage.protocol(output) == "memory":
        raise SettingError(f"--output {uri!r}: memory:// lives in one process and workers are others. Use a folder.")
    if _goes_with_the_job(output):
        raise SettingError(
            f"--output {uri!r} lies in the working directory that `ray job submit` uploaded; the cluster deletes it "
            "with the job. Give an absolute path on a file system that all nodes share, or an object store."
        )
    return output


def _goes_with_the_job(output: str) -> bool:
    """Whether an output would be in the temporary working directory of a submitted job."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    is_uploaded = bool((config.get("runtime_env") or {}).get("working_dir"))
    return is_uploaded and Path(output).is_relative_to(Path.cwd())
