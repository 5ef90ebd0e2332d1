"""One run of a job, from the checks to the exit code. The processing itself is in the `Flow` of the job.

A run proceeds in rounds: find, list and plan; process what is left to do, or else remove what is superseded; find, list
and plan again. It is done (exit code 0) only if a plan that was made after all of its work leaves nothing to do and
nothing to remove. In this way it notices whatever another run, a killed run or the user has changed.

Tested in tests/pipelines/runs/test_exactly_once.py.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pipelines import storage
from pipelines.dataset import layout
from pipelines.dataset.layout import check_output
from pipelines.errors import SettingError
from pipelines.planning.claims import check_configurations, configuration_hash, settings_as_begun
from pipelines.runs.environment import Environment
from pipelines.runs.outcome import EXIT_INCOMPLETE, Outcome, exit_code, report
from pipelines.runs.record import command_line, recorded
from pipelines.runs.request import Job, RunRequest
from pipelines.runs.rounds import Rounds
from pipelines.storage.errors import StorageError, is_refusal, redacted


def run_job(job: Job, request: RunRequest, environment: Environment | None = None) -> int:
    """Check, plan, run, verify and report; return the exit code.

    Raises:
        SettingError: A setting is wrong. It is raised before any worker starts.
    """
    environment = environment or Environment()
    output = check_output(request.output)
    try:
        return _run(job, request, environment, output)
    except OSError as error:
        environment.say(f"stopped: {redacted(str(error))}\nThe same command continues where this one stopped.")
        return EXIT_INCOMPLETE


def _run(job: Job, request: RunRequest, environment: Environment, output: str) -> int:
    environment.say("reading the input list ...")
    with refusals_explained(output):
        listing = layout.list_output(output, environment.store)
    shards = job.source.find(request.inputs, output, environment.say)
    found = {version.name.configuration for version in listing.finished}
    with refusals_explained(output):
        job = _as_begun(job, output, found, environment)
    check_configurations(environment.store, output, found, job.settings)
    with ExitStack() as stack:
        with refusals_explained(output):  # the first write
            record = stack.enter_context(recorded(output, _about(job, request), environment))
        run = Rounds(job=job, request=request, environment=environment, output=output, record=record)
        plan = run.work(shards, listing)
        outcome = Outcome.of(plan)
        record.counted(outcome.planned, outcome.ok, outcome.bad, len(outcome.missing))
        record.trouble = run.trouble
        record.exit_code = exit_code(outcome, request.max_error_rate, request.give_up)
        if plan.is_complete and not run.finish():
            record.exit_code = EXIT_INCOMPLETE
        report(job, request, output, outcome, run.progress, run.trouble, environment.say)
    environment.afterwards(output)
    return record.exit_code


def _as_begun(job: Job, output: str, found: set[str], environment: Environment) -> Job:
    """Return the job with the settings that an earlier version recorded, if equivalent but with fewer entries."""
    settings = settings_as_begun(environment.store, output, found, job.settings, job.continues)
    if settings is job.settings:
        return job
    environment.say(
        "this output was started by an earlier version, which did not record the model's scheduler, tokenizer and "
        "configurations: they are assumed to be the same"
    )
    return dataclasses.replace(job, settings=settings)


@contextmanager
def refusals_explained(output: str) -> Iterator[None]:
    """Turn errors of a storage that refuses writes into a SettingError; temporary errors are raised unchanged."""
    try:
        yield
    except SettingError:
        raise
    except Exception as error:  # every storage driver has its own exceptions for missing permissions
        lasting = FileNotFoundError | FileExistsError  # not even the first folder can be created
        if isinstance(error, OSError) and not (isinstance(error, lasting) or is_refusal(error)):
            raise
        if isinstance(error, StorageError):  # its message says what to do
            raise SettingError(f"--output {output} cannot be written: {error}") from error
        where = "" if storage.protocol(output) == "file" else "; credentials come from the environment"
        raise SettingError(
            f"--output {output} cannot be written: {type(error).__name__}: {redacted(str(error))}. Check the path and "
            f"the permissions{where}."
        ) from error


def _about(job: Job, request: RunRequest) -> dict[str, Any]:
    """Return what the record of a run contains before anything is planned."""
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
