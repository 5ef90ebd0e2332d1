"""Ctrl-C, SIGTERM and SIGHUP as an exception."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP raise Interrupted; a second one ends the process at once.

    Only a process's main thread is told of signals; in others nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_once(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, lambda number, frame: os._exit(128 + number))
        raise Interrupted(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, raise_once) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
