"""The progress line and the reasons in the report."""

import io
from collections import Counter

from pipelines.dataset.failures import reasons_text
from pipelines.runs.progress import Progress, clock


def test_the_line_counts_and_predicts() -> None:
    progress = Progress(100, stream=io.StringIO())
    assert progress.line().startswith("0/100 samples")
    progress.started -= 10
    progress.add({"ok": 45, "bad": 5, "reasons": {"decode: broken": 5}})
    assert progress.line() == "50/100 samples  5.0/s  90.0% ok  ETA 0:10"


def test_the_line_tells_how_busy_the_models_are() -> None:
    progress = Progress(100, stream=io.StringIO())
    progress.started -= 10
    model = {"actor": "a", "passed_s": 8.0, "busy_s": 6.0, "rows": 48, "rows_s": 6.0}
    progress.add({"ok": 50, "bad": 0, "model": model})
    assert progress.line() == "50/100 samples  5.0/s  100.0% ok  ETA 0:10  model 8.0/s, 75% busy"
    assert progress.history.points[-1][1:] == (50, 0.75)


def test_filtered_samples_and_the_slowest_engine_are_named() -> None:
    progress = Progress(100, stream=io.StringIO())
    progress.started -= 10
    model = {"actor": "a", "passed_s": 8.0, "busy_s": 6.0, "rows": 48, "rows_s": 6.0}
    progress.add({"ok": 36, "bad": 14, "filtered": 10, "engines": {"model edge": {"model": model}}})
    assert progress.line() == ("50/100 samples  5.0/s  90.0% ok, 10 filtered  ETA 0:10  model edge 8.0/s, 75% busy")


def test_a_log_gets_the_last_line() -> None:
    stream = io.StringIO()
    with Progress(10, stream=stream, interval_s=60) as progress:
        progress.add({"ok": 10, "bad": 0})
    assert stream.getvalue().startswith("10/10 samples")


def test_clock_and_reasons() -> None:
    assert [clock(seconds) for seconds in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
    text = reasons_text(Counter({f"decode: {number}": number for number in range(1, 12)}))
    assert text.splitlines()[0].split() == ["11", "decode:", "11"]
    assert text.endswith("and 3 other reasons")
