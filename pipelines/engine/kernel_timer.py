"""A kernel timer that kills this process if its threads have not run for a long time.

A watchdog is a thread, and in a stopped process (SIGSTOP, a debugger, a frozen container) no thread runs: Ray would
wait for it forever while it occupies its GPU. Therefore a thread keeps postponing a timer of the kernel. If it no
longer does so, the kernel sends SIGKILL, which also ends stopped processes, whether or not the run still exists.

POSIX timers (timer_create(2)) are available on Linux; elsewhere nothing is done.
"""

import ctypes
import signal
import threading
import time
from contextlib import suppress
from functools import cache

POSTPONE_EVERY_S = 5.0
SIGEV_SIGNAL = 0
"""<signal.h>: the timer sends a signal to the process."""


@cache
def kill_when_frozen(limit_s: float) -> None:
    """Kill this process as soon as none of its threads has run for `limit_s`. Repeated calls have no effect."""
    timer = _kill_timer()
    if timer is not None:
        timer.start(limit_s)
        threading.Thread(target=_postpone, args=(timer, limit_s), daemon=True).start()


class _SignalEvent(ctypes.Structure):
    """`struct sigevent` of 64-bit Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


class _Schedule(ctypes.Structure):
    """`struct itimerspec` of 64-bit Linux."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class _Timer:
    """A timer of the kernel, created for this process."""

    def __init__(self, library: ctypes.CDLL, id_: ctypes.c_void_p) -> None:
        self._library = library
        self._id = id_

    def start(self, limit_s: float) -> None:
        """Expire once, `limit_s` from now; replaces the time set before."""
        whole_s = int(limit_s)
        schedule = _Schedule(first_s=whole_s, first_ns=int((limit_s - whole_s) * 1e9))
        self._library.timer_settime(self._id, 0, ctypes.byref(schedule), None)


def _kill_timer() -> _Timer | None:
    """A timer whose signal is SIGKILL; None if the system has no such timers."""
    for name in (None, "librt.so.1"):  # before glibc 2.34 (2021) timers were in a separate library
        with suppress(OSError):
            library = ctypes.CDLL(name)
            if hasattr(library, "timer_create"):
                id_ = ctypes.c_void_p()
                event = _SignalEvent(signal=signal.SIGKILL, notify=SIGEV_SIGNAL)
                made = library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(id_))
                return _Timer(library, id_) if made == 0 else None
    return None


def _postpone(timer: _Timer, limit_s: float) -> None:
    while True:
        time.sleep(min(POSTPONE_EVERY_S, limit_s / 4))
        timer.start(limit_s)
