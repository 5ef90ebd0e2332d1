"""report.html in the output root: a self-contained page to open or to send."""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from pipelines.dataset.failures import Reasons
from pipelines.dataset.funnel import funnel
from pipelines.dataset.ownership import Say, is_our_png, is_our_text, marked, our_file, publish_beside
from pipelines.errors import say
from pipelines.runs.chart import rate_chart
from pipelines.runs.status import Status, read_status
from pipelines.runs.status_text import run_rows, untold_text
from pipelines.storage.errors import redacted

REASONS_SHOWN = 30
SHARDS_SHOWN = 50
ENGINE_COLUMNS = {
    "actors": "actors",
    "model_samples_per_s": "samples/s if it never waited",
    "busy_share": "busy share",
    "device_s": "seconds on devices",
    "batch_size": "largest batch",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .5em 0 1.5em } th { text-align: left }
td, th { border-bottom: 1px solid #ddd; padding: .2em .8em .2em 0; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } code { overflow-wrap: anywhere }
"""


def write_report(output: str, tell: Say = say) -> None:
    """Publish the page of an output that had a run. Raises OSError if the storage fails."""
    preview = our_file(output, "preview.png", is_our_png)
    page = report_page(read_status(output), preview, datetime.now(UTC))
    publish_beside(output, "report.html", marked(page), is_our_text, tell)


def report_page(status: Status, preview: bytes, now: datetime) -> str:
    """Return the page: counts, preview, errors by reason, unfinished shards, runs and settings."""
    last = status.runs[0]
    open_ = sorted(
        (shard for shard in status.shards if shard.pending or shard.failed),
        key=lambda shard: (-shard.pending, -shard.failed),
    )
    head, *runs = run_rows(status.runs, now)
    done = last.get("done", {})
    waiting = [["failed, to be fetched again", status.waiting]] if status.waiting else []
    filtered = [["filtered", status.filtered]] if status.filtered else []
    counts = [["done", status.ok], ["failed", status.failed], *filtered, ["pending", status.pending], *waiting]
    sections = [
        _table(["", "samples"], counts),
        _image(preview),
        _funnel(status),
        _section("Shards with pending or failed samples", ["done", "failed", "pending", "shard"],
                 [[shard.ok, shard.failed, shard.pending, shard.uri] for shard in open_[:SHARDS_SHOWN]]),
        _section("Last runs", head, runs),
        _section("Models of the last run", ["", ""], _models(done)),
        _section("Engines of the last run", ["engine", *ENGINE_COLUMNS.values()], _engines(done)),
        _titled("Rate of the last run", rate_chart(done.get("history", ()), done.get("samples_per_s", 0.0))),
        _section("Seconds of the last run, all workers together", ["stage", "seconds"],
                 list(done.get("seconds", {}).items())),
        _section("Settings", ["setting", "value"], _settings(last["settings"])),
        _section("Versions of the last run", ["package", "version"], list(last["versions"].items())),
    ]  # fmt: skip
    title = escape(f"{last['job']}: {redacted(status.output)}")
    markup_head = f'<head><meta charset="utf-8"><title>{title}</title>\n<style>{STYLE}</style></head>'
    body = f"<h1>{title}</h1>\n<p>As of {now:%Y-%m-%d %H:%M} UTC.</p>\n{''.join(sections)}"
    return f'<!doctype html>\n<html lang="en">{markup_head}\n<body>{body}</body></html>\n'


def _models(done: Mapping[str, Any]) -> list[list[Any]]:
    """Return what a run knows about its models; `pipelines.stages.model_time` defines share and rate."""
    names = {
        "busy_share": "share of the time in which the devices worked, 0 to 1",
        "model_samples_per_s": "samples per second if they never waited",
        "gpu_hours": "GPU hours",
    }
    rows: list[list[Any]] = [[text, done[name]] for name, text in names.items() if name in done]
    return [*rows, ["compiling", compiling_text(done["compile"])]] if "compile" in done else rows


def _engines(done: Mapping[str, Any]) -> list[list[Any]]:
    """Return what a run knows about each of several models; the slowest one sets the rate of the run."""
    engines = done.get("engines", {})
    return [[stage, *(use.get(name, "-") for name in ENGINE_COLUMNS)] for stage, use in engines.items()]


def compiling_text(compiling: Mapping[str, Any]) -> str:
    """Say what compiling did, from the record of a run."""
    text = (
        f"{compiling['mode']}: {compiling['compiled']} of {compiling['shapes']} shapes, {compiling['from_cache']} of "
        f"them from the cache, in {compiling['seconds']} s of all actors"
    )
    return f"{text}; it failed: {compiling['failure']}" if compiling.get("failure") else text


def _reasons(reasons: Reasons) -> list[list[Any]]:
    """Return the most common reasons with their counts, then the number of the others."""
    shown = reasons.counts.most_common(REASONS_SHOWN)
    rest = reasons.counts.total() - sum(count for _, count in shown)
    others = [[rest, f"{len(reasons.counts) - len(shown):,} other reasons"]] if rest else []
    untold = [[reasons.unread, untold_text(reasons)]] if reasons.unread else []
    return [*([count, reason] for reason, count in shown), *others, *untold]


def _funnel(status: Status) -> str:
    """Return why samples failed or, if filters have removed some, how many are left of the input."""
    if not status.filtered:
        return _section("Why samples failed", ["samples", "reason"], _reasons(status.reasons))
    lines = funnel(status.ok, status.reasons, status.pending)
    return _section("From the input to the rows", ["samples", ""], [[line.samples, line.what] for line in lines])


def _settings(settings: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in settings.items()]


def _image(preview: bytes) -> str:
    if not preview:
        return ""
    content = base64.b64encode(preview).decode()
    return (
        f'<h2>Preview</h2>\n<img alt="images of the first rows, side by side" src="data:image/png;base64,{content}">\n'
    )


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table under its title, or nothing if it has no rows."""
    return _titled(title, _table(head, rows) if rows else "")


def _titled(title: str, markup: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{markup}" if markup else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>\n" for row in rows)
    return f"<table>\n<tr>{names}</tr>\n{lines}</table>\n"


def _cell(value: Any) -> str:
    number = isinstance(value, int | float)
    return f'<td class="number">{value:,}</td>' if number else f"<td><code>{escape(str(value))}</code></td>"
