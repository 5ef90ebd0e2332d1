"""Kills a worker whose chunk takes longer than allowed."""

import faulthandler
import os
import threading
from collections.abc import Callable

from pipelines.engine.kernel_timer import end_when_frozen

GRACE_S = 10.0
"""Between the end of the time limit and the end of a process that does not even run its watchdog; as long again
is given to one that runs no thread at all."""


def timed_out(limit_s: float) -> str:
    """The last words of a process that hangs."""
    return f"timed out after {limit_s:g} s"


def _end_when_frozen(limit_s: float | None) -> None:
    """Later than a watchdog, which says more."""
    if limit_s is not None:
        end_when_frozen(limit_s + 2 * GRACE_S)


class Watchdog:
    """Ends this process when it has worked for too long since the last `start`."""

    def __init__(self, limit_s: float | None, last_words: Callable[[str], None]) -> None:
        self.limit_s = limit_s
        self._last_words = last_words
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Start the clock, anew if it runs."""
        self.stop()
        if self.limit_s is not None:
            self._timer = threading.Timer(self.limit_s, self._bite)
            self._timer.daemon = True
            self._timer.start()
            # Code that hangs without giving threads a turn: this one is native, and tells where in the worker's log.
            faulthandler.dump_traceback_later(self.limit_s + GRACE_S, exit=True, file=2)

    def stop(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            faulthandler.cancel_dump_traceback_later()
            self._timer = None

    def _bite(self) -> None:
        try:
            self._last_words(timed_out(self.limit_s))
            faulthandler.dump_traceback(file=2)
        finally:
            os._exit(1)
