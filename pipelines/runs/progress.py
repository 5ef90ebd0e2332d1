"""The progress line of a running job, and the numbers of its report."""

import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, TextIO

from pipelines.runs.model_use import History, ModelUse


class Progress:
    """Counts samples as receipts arrive and prints a progress line, which is updated in place on a terminal."""

    def __init__(self, total: int, *, stream: TextIO | None = None, interval_s: float | None = None) -> None:
        self.total = total
        self.ok = 0
        self.bad = 0
        self.filtered = 0
        """Those of the bad samples that a filter has removed."""
        self.elsewhere = 0
        """Samples of chunks that another run published at the same time."""
        self.prompts_cut = 0
        """Rows whose prompt was cut at the limit of the text encoder."""
        self.reasons: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        """Stage -> seconds spent in it, summed over all workers."""
        self.use = ModelUse()
        """Busy share, rate and GPU time of the actors."""
        self.history = History()
        self.failures: list[str] = []
        """Why chunks failed for reasons other than their samples."""
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.interval_s = interval_s or (1.0 if self.on_terminal else 10.0)
        self.started = time.monotonic()
        self.ended: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_printing, daemon=True)

    def add(self, receipt: dict[str, Any]) -> None:
        """Count a published chunk."""
        self.ok += receipt["ok"]
        self.bad += receipt["bad"]
        self.filtered += receipt.get("filtered", 0)
        self.elsewhere += receipt.get("elsewhere", 0)
        self.reasons.update(receipt.get("reasons", {}))
        self.seconds.update(receipt.get("seconds", {}))
        self.prompts_cut += receipt.get("cut", 0)
        self.use.add(receipt)
        self.history.add(self.elapsed_s, self.done, self.use.busy_share)

    def note_failure(self, reason: str) -> None:
        """Record why a chunk failed, for the report."""
        self.failures.append(reason)

    @property
    def done(self) -> int:
        """Samples that this run has published."""
        return self.ok + self.bad

    @property
    def left(self) -> int:
        """Samples that are not published yet."""
        return self.total - self.done - self.elsewhere

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start of the work to its end, or to now."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    def line(self) -> str:
        """Return the progress line.

        For example `640/1000 samples  12.3/s  99.5% ok  ETA 0:29  model 13.1/s, 94% busy`, where 13.1 is the rate of
        models that never wait. Of several models, the slowest one is shown under its name.
        """
        if self.done == 0:
            return f"0/{self.total} samples  {clock(self.elapsed_s)}  starting workers, loading the model"
        rate = self.done / self.elapsed_s
        line = (
            f"{self.done + self.elsewhere}/{self.total} samples  {rate:.1f}/s  {self._share_ok()}  "
            f"ETA {clock(self.left / rate)}"
        )
        model_rate, busy_share = self.use.rows_per_s, self.use.busy_share
        if model_rate is None or busy_share is None:
            return line
        return f"{line}  {self.use.slowest_name} {model_rate:.1f}/s, {busy_share:.0%} busy"

    def _share_ok(self) -> str:
        """Return the share of rows among the samples that no filter has removed, and the number of the others."""
        tried = max(1, self.done - self.filtered)
        filtered = f", {self.filtered} filtered" if self.filtered else ""
        return f"{100 * self.ok / tried:.1f}% ok{filtered}"

    def end_line(self) -> None:
        """Move to a new line on a terminal, so that a message does not continue the progress line."""
        if self.on_terminal:
            print(file=self.stream, flush=True)

    def __enter__(self) -> "Progress":
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = time.monotonic()
        self._stop.set()
        self._thread.join(timeout=5)
        self._print()
        self.end_line()

    def _keep_printing(self) -> None:
        while not self._stop.wait(self.interval_s):
            self._print()

    def _print(self) -> None:
        if self.on_terminal:
            print(f"\r\x1b[K{self.line()}", end="", file=self.stream, flush=True)
        else:
            print(self.line(), file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """Format a duration as `1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
