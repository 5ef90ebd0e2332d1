"""What a training on a corpus tells at the terminal: workers, a line of progress, validations, rows that are left out.

Tested in tests/pipelines/training/test_progress.py.
"""

import sys
import time
from collections import Counter
from typing import Any, TextIO

from pipelines.runs.progress import clock

SHOWN = 5
"""Number of reasons and keys in a message."""


class TrainingProgress:
    """Counts the events of workers and prints lines about them."""

    def __init__(self, steps: int, stream: TextIO | None = None) -> None:
        self.steps = steps
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.problems: dict[str, str] = {}
        """Key of a row that cannot be used -> why."""
        self.without_caption: set[str] = set()
        self.failure = ""
        """An error that no other attempt would avoid; empty if there is none."""
        self.out_of_memory = ""
        self.step = 0
        self._is_in_line = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event of a worker, see `pipelines.training.work`."""
        self.problems.update(event.get("problems", ()))
        self.without_caption.update(event.get("without_caption", ()))
        self.failure = event.get("failure", self.failure)
        self.out_of_memory = event.get("out_of_memory", self.out_of_memory)
        if "started" in event:
            self._say(started_line(event["started"], self.steps, event["workers"]))
            self._began = time.monotonic(), event["started"]
        if "step" in event:
            self.step = event["step"]
            self._show(self.line(event))
        if "validated" in event:
            values = "  ".join(f"{name} {value:.4g}" for name, value in event["values"].items())
            self._say(f"held-out rows after step {event['validated']}: {values}")

    def line(self, event: dict[str, Any]) -> str:
        """Return the line of progress after a step."""
        began_s, first = self._began
        left_s = (time.monotonic() - began_s) / max(1, self.step - first) * (self.steps - self.step)
        return (
            f"step {self.step}/{self.steps}  loss {event['loss']:.4g}  {event['pairs_a_second']:.1f} pairs/s  "
            f"ETA {clock(left_s)}"
        )

    def end(self, left_out: dict[str, int]) -> None:
        """Tell at the end which rows were left out, counted by reason."""
        self._say("")
        reasons = Counter(left_out) + Counter(self.problems.values())
        for reason, count in reasons.most_common(SHOWN):
            self._say(f"left out: {count} {'row' if count == 1 else 'rows'}: {reason}")
        if len(reasons) > SHOWN:
            self._say(f"left out: {sum(reasons.values())} rows for {len(reasons)} reasons in all")
        if self.without_caption:
            self._say(f"{len(self.without_caption)} rows have no caption; they are trained with the trigger text alone")

    def _show(self, line: str) -> None:
        """Print a line that the next one replaces on a terminal."""
        if self.on_terminal:
            print(f"\r\x1b[K{line}", end="", file=self.stream, flush=True)
            self._is_in_line = True
        else:
            print(line, file=self.stream, flush=True)

    def _say(self, line: str) -> None:
        if self._is_in_line:
            print(file=self.stream)
            self._is_in_line = False
        if line:
            print(line, file=self.stream, flush=True)


def started_line(step: int, steps: int, workers: int) -> str:
    """Return the line about workers that have started."""
    who = "1 worker" if workers == 1 else f"{workers} workers"
    return f"training with {who}" + (f" from step {step} of {steps} on" if step else f", {steps} steps")
