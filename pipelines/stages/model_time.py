"""How busy the model of an actor is, and how many rows a second it computes while it is.

Time counts from the end of the actor's first micro-batch, which may compile or tune, to the end of its last one:

* busy share: seconds of work on the device / seconds that passed;
* rows per second: rows / seconds of work on the device, over the micro-batches of a shape (working size and number of
  rows) that the actor had computed before. A bare loop over the model on rows in memory would reach this rate.

The numbers of an actor only grow, so that its latest report replaces all earlier ones, in whatever order they arrive.
"""

import threading
import time
import uuid
from collections.abc import Callable, Hashable
from typing import Any


class ModelTime:
    """The time of the model of one actor. Several threads may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.actor = uuid.uuid4().hex[:12]
        """Identifies this process of the actor."""
        self.clock = clock
        self._lock = threading.Lock()
        self._since_s: float | None = None
        """The end of the first micro-batch."""
        self._until_s = clock()
        self._busy_s = self._rows_s = 0.0
        self._rows = 0
        self._shapes: set[Hashable] = set()

    def worked(self, started_s: float, ended_s: float) -> None:
        """Count work on the device, in seconds of the clock; no two calls overlap."""
        with self._lock:
            self._until_s = ended_s
            if self._since_s is not None:
                self._busy_s += max(0.0, ended_s - max(started_s, self._since_s))

    def computed(self, shape: Hashable, rows: int, device_s: float) -> None:
        """Count a micro-batch that succeeded, after its work has been counted."""
        with self._lock:
            if self._since_s is None:
                self._since_s = self._until_s
            if (shape, rows) in self._shapes:
                self._rows += rows
                self._rows_s += device_s
            self._shapes.add((shape, rows))

    def report(self) -> dict[str, Any]:
        """The numbers so far: actor, passed_s, busy_s, and the rows with their seconds, rows_s."""
        with self._lock:
            passed_s = 0.0 if self._since_s is None else self._until_s - self._since_s
            return {
                "actor": self.actor,
                "passed_s": round(passed_s, 4),
                "busy_s": round(self._busy_s, 4),
                "rows": self._rows,
                "rows_s": round(self._rows_s, 4),
            }
