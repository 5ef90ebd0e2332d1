"""The status of an output as text for `jobs/status.py`.

Tested in tests/pipelines/runs/test_status.py.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pipelines.dataset.failures import FILES_READ, Reasons, reasons_text
from pipelines.dataset.funnel import funnel, funnel_text
from pipelines.runs.overlap import NEVER_ENDED, state_of
from pipelines.runs.progress import clock
from pipelines.runs.status import Changes, Record, Status

SHARDS_SHOWN = 20


def status_text(status: Status, now: datetime) -> str:
    """Return one screen of text: counts, unfinished shards, changes of the input, runs and reasons."""
    return "\n".join(_lines(status, now))


def untold_text(reasons: Reasons) -> str:
    """Describe the failed samples whose reasons were not counted."""
    return f"and {reasons.unread:,} more, in files of errors/ that were not read; at most {FILES_READ:,} files are read"


def run_rows(runs: Sequence[Record], now: datetime) -> list[list[str]]:
    """Return a table of runs: times, state, counts, rates of run and models, busy share, GPU hours, batch and plan.

    `pipelines.stages.model_time` defines the rate and the busy share of the models.
    """
    head = [
        "started (UTC)",
        "took",
        "ended",
        "ok",
        "bad",
        "samples/s",
        "model/s",
        "busy",
        "GPU hours",
        "batch",
        "planned",
    ]
    return [head, *(_run_row(run, now) for run in runs)]


def _lines(status: Status, now: datetime) -> Iterator[str]:
    last = status.runs[0]
    yield f"{status.output}: {last['job']}, configuration {last['configuration']}"
    total = max(1, status.planned)
    filtered = [("filtered", status.filtered)] if status.filtered else []
    for name, count in (("done", status.ok), ("failed", status.failed), *filtered, ("pending", status.pending)):
        yield f"    {name:<8}{count:>12,}  {count / total:6.1%}"
    if status.waiting:
        yield f"    {status.waiting:,} failed samples could not be fetched for now; the same command tries them again"
    yield f"    {'planned':<8}{status.planned:>12,}  samples in {len(status.shards):,} shards"
    if not status.is_planned:
        yield "    no run has made a plan yet"
    if status.others:
        yield f"    and {status.others:,} finished samples of shards that are not in the last plan"
    open_ = [shard for shard in status.shards if shard.pending or shard.failed]
    if open_:
        open_.sort(key=lambda shard: (-shard.pending, -shard.failed, shard.uri))
        yield f"\nshards with pending or failed samples: {len(open_):,} of {len(status.shards):,}"
        rows = [[str(shard.ok), str(shard.failed), str(shard.pending), shard.uri] for shard in open_[:SHARDS_SHOWN]]
        yield from _table([["done", "failed", "pending", "shard"], *rows])
        if len(open_) > SHARDS_SHOWN:
            yield f"    and {len(open_) - SHARDS_SHOWN:,} more; --json lists all"
    if status.changes is not None:
        yield from _change_lines(status.changes)
    yield "\nlast runs"
    yield from _table(run_rows(status.runs, now))
    if status.filtered:
        yield "\nfrom the input to the rows"
        yield funnel_text(funnel(status.ok, status.reasons, status.pending))
    elif status.bad:
        yield "\nwhy samples failed"
        if status.reasons.counts:
            yield reasons_text(status.reasons.counts)
        if status.reasons.unread:
            yield f"    {untold_text(status.reasons)}"


def _change_lines(changes: Changes) -> Iterator[str]:
    yield "\ninput since the last plan"
    for name, uris in (("new", changes.new), ("changed", changes.changed), ("gone", changes.gone)):
        yield f"    {len(uris):>6,} {name}" + (
            f": {', '.join(uris[:3])}{', ...' if len(uris) > 3 else ''}" if uris else ""
        )


def _run_row(run: Record, now: datetime) -> list[str]:
    done, plan = run.get("done", {}), run.get("plan", {})
    planned = f"{plan['samples']} samples, {plan['done_before']} done before" if plan else "-"
    planned += "".join(f", --{name} {run['options'][name]}" for name in ("limit", "since") if run["options"][name])
    if run["options"]["retry_errors"]:
        planned += ", --retry-errors"
    return [
        run["started"].replace("T", " ").removesuffix("Z"),
        _took(run),
        _ended(run, now),
        str(done.get("ok", "-")),
        str(done.get("bad", "-")),
        f"{done['samples_per_s']:.2f}" if done.get("samples_per_s") else "-",
        f"{done['model_samples_per_s']:.2f}" if done.get("model_samples_per_s") else "-",
        f"{done['busy_share']:.0%}" if "busy_share" in done else "-",
        f"{done['gpu_hours']:.2f}" if "gpu_hours" in done else "-",
        str(done.get("batch_size") or "-"),
        planned,
    ]


def _took(run: Record) -> str:
    if run["ended"] is None:
        return "-"
    return clock((datetime.fromisoformat(run["ended"]) - datetime.fromisoformat(run["started"])).total_seconds())


def _ended(run: Record, now: datetime) -> str:
    state = state_of(run, now)
    if run["ended"] is not None:
        return f"{state}, exit code {run['exit_code']}"
    heard = run["heard"].replace("T", " ").removesuffix("Z")
    return f"{NEVER_ENDED}, last heard of {heard}" if state == NEVER_ENDED else f"{state}, heard of {heard}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose columns, except for the last one, are aligned."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
        yield "    " + "  ".join([*cells, row[-1]])
