"""One run of a job, from the checks to the exit code. What the job does is in its `Flow`; everything else is here."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipelines import layout, storage
from pipelines.agreement import agree_on_chunk_size, doubled_files
from pipelines.errors import SettingError
from pipelines.inputs import Shard
from pipelines.placement import choose_resources, describe
from pipelines.plan import Plan, check_configuration, make_plan
from pipelines.progress import Progress, clock, reason_kinds, reasons_text, say
from pipelines.publish import failed_positions
from pipelines.report_page import write_report
from pipelines.row_formats import PARQUET, RowFormat
from pipelines.runs import RunRecord, command_line, recorded
from pipelines.since import modified_since
from pipelines.sources import Source
from pipelines.storage_errors import redacted

if TYPE_CHECKING:
    from pipelines.flow import Flow, Resources

EXIT_OK, EXIT_INCOMPLETE, EXIT_SETTING, EXIT_ERROR_RATE = 0, 1, 2, 3


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every chunked job is asked."""

    inputs: Sequence[str]
    output: str
    chunk_size: int = 64
    limit: int | None = None
    since: datetime | None = None
    """Leave out the shards that were written before."""
    retry_errors: bool = False
    """Do the failed samples of finished chunks again."""
    max_error_rate: float = 1.0
    actors: int | None = None
    """The most actors; None: as many as there are GPUs, else one."""
    fewest_actors: int | None = None
    """Actors to start with; more follow while chunks wait for one. None: `actors`."""
    gpus_per_actor: float | None = None
    chunk_timeout_s: float | None = None
    """A worker that takes longer at one stage of a chunk, or at one sample of it, is ended."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one job adds: its settings, its source and its stages."""

    name: str
    settings: Mapping[str, Any]
    """Everything that changes a row's content, and nothing else."""
    source: Source
    make_flow: Callable[[str, "Resources"], "Flow"]
    """(output URI, resources) -> the stages."""
    finish: Callable[[str, int, int], None]
    """(output URI, rows in data/, samples in errors/) -> writes what lies beside the data, such as the dataset card."""
    row_format: RowFormat = PARQUET


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the output holds of this run's input, counted in the output itself."""

    planned: int
    ok: int
    bad: int
    missing: tuple[str, ...]
    """Names of chunks without a mark."""


def run_job(job: Job, request: Request) -> int:
    """Check, plan, run, verify, report; returns the exit code.

    Raises:
        SettingError: before any worker starts.
    """
    output = check_output(request.output)
    configuration = layout.configuration_hash(dict(job.settings))
    say("reading the input list ...")
    shards = job.source.find(request.inputs, output)
    published = layout.published(output)
    check_configuration(published, output, configuration, dict(job.settings))
    write_configuration(output, configuration, job)
    with recorded(output, _about(job, request, configuration)) as record:
        plan = _plan(job, request, shards, published, record)
        left = sum(len(chunk.positions) for chunk in plan.chunks)
        progress = Progress(left)
        trouble = _process(job, request, plan, record, progress) if plan.chunks else None
        outcome = _verify(record, plan)
        if not outcome.missing:
            _tidy(job, output, plan)
        _report(job, request, output, outcome, progress, trouble)
        record.trouble = trouble
        record.exit_code = EXIT_INCOMPLETE if trouble else _exit_code(outcome, request.max_error_rate)
    _write_report(output)
    return record.exit_code


def _write_report(output: str) -> None:
    try:
        write_report(output)
    except OSError as error:
        say(f"report.html cannot be written: {redacted(str(error))}")


def _about(job: Job, request: Request, configuration: str) -> dict[str, Any]:
    """What the record of a run says before anything is planned."""
    options = {name: value for name, value in dataclasses.asdict(request).items() if name not in ("inputs", "output")}
    return {
        "job": job.name,
        "command": command_line(),
        "inputs": list(request.inputs),
        "output": request.output,
        "options": options | {"since": request.since.isoformat() if request.since else None},
        "settings": dict(job.settings),
        "configuration": configuration,
        "row_format": job.row_format.name,
    }


def _plan(job: Job, request: Request, shards: list[Shard], published: layout.Published, record: RunRecord) -> Plan:
    """What is to do. Raises SettingError where the input has no samples."""
    output = record.output
    if request.since is not None:
        found, shards = len(shards), modified_since(shards, request.since)
        say(f"{len(shards)} of {found} shards were written since {request.since:%Y-%m-%d %H:%M} UTC")
    measured = job.source.measure(shards, output, request.limit)
    chunk_size = agree_on_chunk_size(output, request.chunk_size, say)
    retry = (lambda mark: failed_positions(output, mark.name.text)) if request.retry_errors else None
    configuration = layout.configuration_hash(dict(job.settings))
    plan = make_plan(measured, published, configuration, chunk_size, retry)
    if plan.samples == 0 and request.since is None:
        raise SettingError(f"the input has {len(shards)} files and not one sample in them: nothing to do.")
    left = sum(len(chunk.positions) for chunk in plan.chunks)
    say(f"{plan.samples} samples in {len(measured)} shards; {plan.samples - left} done before, {left} to do")
    record.planned(measured, plan, is_whole=request.limit is None and request.since is None)
    return plan


def _tidy(job: Job, output: str, plan: Plan) -> None:
    """Everything planned is there: remove what it replaces, write what lies beside it."""
    for uri in [*plan.superseded, *doubled_files(layout.published(output))]:
        storage.remove(uri)
    marks = layout.list_marks(output).values()
    job.finish(output, sum(mark.ok for mark in marks), sum(mark.bad for mark in marks))


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


def write_configuration(output: str, configuration: str, job: Job) -> None:
    """Spell out the settings behind the configuration hash; the first write, so it finds an unwritable output."""
    uri = layout.configuration_uri(output, configuration)
    try:
        storage.publish(uri, json.dumps(dict(job.settings), indent=1, sort_keys=True).encode())
    except Exception as error:  # every storage driver has its own exceptions for "you may not"
        raise SettingError(
            f"--output {output} cannot be written: {type(error).__name__}: {error}. Check the path and "
            "the permissions; credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)."
        ) from error


def _process(job: Job, request: Request, plan: Plan, record: RunRecord, progress: Progress) -> str | None:
    """Run the chunks; returns why it stopped early, if it did."""
    from pipelines.cluster import ray_session
    from pipelines.flow import FlowError, run_flow

    with interrupts_raise():
        try:
            say("starting Ray ...")
            with ray_session() as available:
                resources = choose_resources(request, available, can_grow="RAY_ADDRESS" in os.environ)
                record.working(available, resources.actors, resources.gpus_per_actor, progress)
                say(f"{len(plan.chunks)} chunks on {describe(resources)}")
                with progress:
                    flow = job.make_flow(record.output, resources)
                    for receipt in run_flow(plan.chunks, flow, resources, progress.note_failure):
                        progress.add(receipt)
        except FlowError as error:
            return str(error)
        except Interrupted as interrupt:
            outcome = _verify(record, plan)
            left = outcome.planned - outcome.ok - outcome.bad
            say(f"\n{interrupt}: stopped. {left} of {outcome.planned} samples are left; the same command does them.")
            raise SystemExit(interrupt.exit_code) from None
    return None


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP raise Interrupted; a second one ends the process at once."""

    def raise_once(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, lambda number, frame: os._exit(128 + number))
        raise Interrupted(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, raise_once) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verify(record: RunRecord, plan: Plan) -> Outcome:
    """Count what is published, by listing the output, against what was planned."""
    marks = layout.list_marks(record.output)
    names = {*(mark.name.text for mark in plan.finished), *(chunk.name for chunk in plan.chunks)}
    done = [marks[name] for name in names if name in marks]
    outcome = Outcome(
        planned=plan.samples,
        ok=sum(mark.ok for mark in done),
        bad=sum(mark.bad for mark in done),
        missing=tuple(chunk.name for chunk in plan.chunks if chunk.name not in marks),
    )
    record.counted(outcome.planned, outcome.ok, outcome.bad, len(outcome.missing))
    return outcome


def _report(job: Job, request: Request, output: str, outcome: Outcome, progress: Progress, trouble: str | None) -> None:
    done = outcome.ok + outcome.bad
    say(f"\n{done} of {outcome.planned} samples: {outcome.ok} rows in data/, {outcome.bad} in errors/")
    if progress.done:
        rate = progress.done / progress.elapsed_s
        say(f"this run: {progress.done} samples in {clock(progress.elapsed_s)}, {rate:.2f}/s")
    if progress.reasons:
        say("failed in this run:\n" + reasons_text(reason_kinds(progress.reasons)))
    for reason in dict.fromkeys(progress.failures):
        say(f"a chunk failed: {reason}")
    if trouble:
        say(f"stopped: {trouble}")
    if outcome.missing:
        names = "\n".join(f"    {name}" for name in outcome.missing[:20])
        say(f"{len(outcome.missing)} chunks are not finished; the same command does them:\n{names}")
    elif done != outcome.planned:
        say(f"the output accounts for {done} samples, the plan for {outcome.planned}: has the input changed meanwhile?")
    elif done and outcome.bad / done > request.max_error_rate:
        say(f"{outcome.bad / done:.1%} of the samples failed, more than --max-error-rate {request.max_error_rate:g}")
    if outcome.ok:
        say(f"output: {output}")
        files = storage.join(output, "data", f"*.{job.row_format.extension}")
        say(f'load:   datasets.load_dataset("{job.row_format.name}", data_files="{files}")')


def _exit_code(outcome: Outcome, max_error_rate: float) -> int:
    done = outcome.ok + outcome.bad
    if outcome.missing or done != outcome.planned:
        return EXIT_INCOMPLETE
    return EXIT_ERROR_RATE if done and outcome.bad / done > max_error_rate else EXIT_OK
