"""The outcome of a run: counts, what is left, the exit code, and the report at its end.

Tested in tests/pipelines/runs/test_exactly_once.py and tests/pipelines/runs/test_waiting.py.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from pipelines import storage
from pipelines.dataset.failures import reason_kinds, reasons_text
from pipelines.errors import FETCH
from pipelines.planning.plan import Plan
from pipelines.readers.patterns import escaped
from pipelines.runs.progress import Progress, clock
from pipelines.runs.request import Job, RunRequest

EXIT_OK, EXIT_INCOMPLETE, EXIT_SETTING, EXIT_ERROR_RATE = 0, 1, 2, 3
CHUNKS_NAMED = 20
"""Unfinished chunks that are listed by name."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the output contains of the input of this run, counted in the output itself."""

    planned: int
    """Samples of the input."""
    ok: int
    """Rows in data/."""
    bad: int
    """Samples in errors/."""
    missing: tuple[str, ...]
    """Names of the unfinished chunks."""
    superseded: int = 0
    """Versions that do not count and have not been removed yet."""
    waiting: int = 0
    """Number of `bad` samples that the same command tries again."""
    filtered: int = 0
    """Number of `bad` samples that a filter has removed."""

    @classmethod
    def of(cls, plan: Plan) -> "Outcome":
        """Return the outcome according to the last plan of a run."""
        return cls(
            planned=plan.samples,
            ok=sum(version.ok for version in plan.finished),
            bad=sum(version.bad for version in plan.finished),
            missing=tuple(chunk.name for chunk in plan.chunks),
            superseded=len(plan.superseded),
            waiting=plan.waiting,
            filtered=sum(version.filtered for version in plan.finished),
        )

    @property
    def done(self) -> int:
        """Samples in data/ or errors/."""
        return self.ok + self.bad

    @property
    def failed(self) -> int:
        """Samples in errors/ that no filter has removed."""
        return self.bad - self.filtered


def exit_code(outcome: Outcome, max_error_rate: float, give_up: bool = False) -> int:
    """Return the exit code; it is 0 only if nothing is left to do or to remove."""
    if outcome.missing or outcome.superseded or outcome.done != outcome.planned:
        return EXIT_INCOMPLETE
    if outcome.waiting and not give_up:
        return EXIT_INCOMPLETE
    return EXIT_ERROR_RATE if has_failed(outcome.ok, outcome.failed, max_error_rate) else EXIT_OK


def has_failed(ok: int, failed: int, max_error_rate: float) -> bool:
    """Return whether more samples failed than the rate allows, or all of them, whatever the rate.

    Samples that a filter has removed are not counted.
    """
    return failed > 0 and (ok == 0 or failed / (ok + failed) > max_error_rate)


def report(
    job: Job,
    request: RunRequest,
    output: str,
    outcome: Outcome,
    progress: Progress,
    trouble: str | None,
    say: Callable[[str], None],
) -> None:
    """Print the report of a run for the user."""
    say(f"\n{outcome.done} of {outcome.planned} samples: {outcome.ok} rows in data/, {outcome.bad} in errors/")
    if outcome.filtered:
        say(f"{outcome.filtered} of those in errors/ were removed by filters, {outcome.failed} failed")
    if progress.done:
        rate = progress.done / progress.elapsed_s
        say(f"this run: {progress.done} samples in {clock(progress.elapsed_s)}, {rate:.2f}/s")
    if progress.prompts_cut:
        say(f"{progress.prompts_cut} prompts were cut at the limit of the text encoder (column prompt_tokens_cut)")
    if progress.elsewhere:
        say(f"{progress.elsewhere} samples were published by another run at the same time")
    if progress.reasons:
        say(f"{_not_published(outcome)} in this run:\n" + reasons_text(reason_kinds(progress.reasons)))
    for reason in dict.fromkeys(progress.failures):
        say(f"a chunk failed: {reason}")
    if trouble:
        say(f"stopped: {trouble}")
    _say_what_is_left(outcome, request, say)
    if outcome.ok:
        say(f"output: {output}")
        say(f"load:   {_load_line(job, output)}")


def _not_published(outcome: Outcome) -> str:
    return "failed or filtered" if outcome.filtered else "failed"


def _load_line(job: Job, output: str) -> str:
    """Return the Python code that loads the rows.

    `datasets` treats a path as a pattern, and `::` as a chain of file systems.
    """
    if "::" in output:
        return f"datasets cannot read a path that contains '::'; rename the folder {output}"
    files = storage.join(escaped(output), "data", f"*.{job.row_format.extension}")
    quoted = json.dumps(files, ensure_ascii=False)
    return f'datasets.load_dataset("{job.row_format.name}", data_files={quoted}{job.load_options(output)})'


def _say_what_is_left(outcome: Outcome, request: RunRequest, say: Callable[[str], None]) -> None:
    if outcome.waiting:
        what = (
            "they stay in errors/ (--give-up)"
            if request.give_up
            else "the same command tries them again; with --give-up they count as failed"
        )
        say(f"{outcome.waiting} samples in errors/ could not be fetched for now (stage {FETCH}); {what}")
    if outcome.missing:
        names = "\n".join(f"    {name}" for name in outcome.missing[:CHUNKS_NAMED])
        say(f"{len(outcome.missing)} chunks are not finished; the same command processes them:\n{names}")
    elif outcome.superseded:
        say(
            f"{outcome.superseded} superseded versions of chunks are still in the output, because another run is "
            "working on it. The same command removes them when that run has ended."
        )
    elif exit_code(outcome, request.max_error_rate, request.give_up) == EXIT_ERROR_RATE:
        say(
            f"{outcome.failed / (outcome.ok + outcome.failed):.1%} of the samples failed, more than --max-error-rate "
            f"{request.max_error_rate:g}: exit code 3. All work is done; the same command does not repeat it."
            if outcome.ok
            else f"none of the {outcome.failed} samples succeeded: exit code 3, whatever --max-error-rate is. The "
            "reasons are in errors/. All work is done; the same command does not repeat it."
        )
