"""Ends a worker whose chunk takes longer than allowed.

Tested in tests/pipelines/engine/test_attempts.py.
"""

import faulthandler
import os
import threading
from collections.abc import Callable

from pipelines.engine.kernel_timer import kill_when_frozen

GRACE_S = 10.0
"""Time from the limit to the end of a process that does not even run its watchdog; twice that for one that runs no
thread at all."""


def timed_out(limit_s: float) -> str:
    """The exit reason of a process that hangs."""
    return f"timed out after {limit_s:g} s"


def kill_when_frozen_later(limit_s: float | None) -> None:
    """Let the kernel kill this process if it is stopped, but only after a watchdog would, whose report says more."""
    if limit_s is not None:
        kill_when_frozen(limit_s + 2 * GRACE_S)


class Watchdog:
    """Ends this process if it has worked for too long since the last `start`."""

    def __init__(self, limit_s: float | None, report: Callable[[str], None]) -> None:
        self.limit_s = limit_s
        self._report = report
        """Called with the exit reason before the process ends."""
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Start the clock, or restart it."""
        self.stop()
        if self.limit_s is not None:
            self._timer = threading.Timer(self.limit_s, self._end_process, [self.limit_s])
            self._timer.daemon = True
            self._timer.start()
            # For code that hangs and lets no other thread run: this timer is native and logs where the code hangs.
            faulthandler.dump_traceback_later(self.limit_s + GRACE_S, exit=True, file=2)

    def stop(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            faulthandler.cancel_dump_traceback_later()
            self._timer = None

    def _end_process(self, limit_s: float) -> None:
        try:
            self._report(timed_out(limit_s))
            faulthandler.dump_traceback(file=2)
        finally:
            os._exit(1)
