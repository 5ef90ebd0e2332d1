"""One run of a job, from the checks to the exit code. What the job does is in its `Flow`; everything else is here.

A run goes on in rounds: find, list and plan; process what is to do, or else remove what is superseded; find, list and
plan again. It says that it is done (exit code 0) only when a plan made after all of its work leaves nothing to do and
nothing to remove. So it notices whatever another run, a killed run or the user has changed.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from pipelines.dataset import layout
from pipelines import storage
from pipelines.planning.claims import check_configurations, configuration_hash, settings_as_begun
from pipelines.runs.environment import Environment
from pipelines.errors import SettingError
from pipelines.runs.interrupts import Interrupted, interrupts_raise
from pipelines.runs.request import Job, Request
from pipelines.runs.rounds import Rounds
from pipelines.runs.outcome import EXIT_INCOMPLETE, EXIT_OK, Outcome, exit_code, report
from pipelines.runs.record import command_line, recorded
from pipelines.storage.errors import StorageError, is_refusal, redacted
from pipelines.storage.uris import S3, check_given
from pipelines.dataset.layout import check_output
__all__ = ["EXIT_INCOMPLETE", "EXIT_OK", "Interrupted", "Job", "Request", "check_output", "interrupts_raise", "run_job"]


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
    """The job with the settings of an output that an earlier version began, where they are the same but say less."""
    settings = settings_as_begun(environment.store, output, found, job.settings, job.continues)
    if settings is job.settings:
        return job
    environment.say(
        "this output was begun by an earlier version, which did not record the model's scheduler, tokenizer and "
        "configurations: they are taken to be the same"
    )
    return dataclasses.replace(job, settings=settings)


@contextmanager
def refusals_explained(output: str) -> Iterator[None]:
    """Inside, a storage that refuses to be written here is a wrong setting; one that fails for now is not."""
    try:
        yield
    except SettingError:
        raise
    except Exception as error:  # every storage driver has its own exceptions for "you may not"
        lasting = FileNotFoundError | FileExistsError  # where not even the first folder can be made
        if isinstance(error, OSError) and not (isinstance(error, lasting) or is_refusal(error)):
            raise
        if isinstance(error, StorageError):  # says what to do
            raise SettingError(f"--output {output} cannot be written: {error}") from error
        where = "" if storage.protocol(output) == "file" else "; credentials come from the environment"
        raise SettingError(
            f"--output {output} cannot be written: {type(error).__name__}: {redacted(str(error))}. Check the path and "
            f"the permissions{where}."
        ) from error


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
