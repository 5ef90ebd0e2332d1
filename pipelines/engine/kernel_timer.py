"""An alarm of the kernel's that ends this process when its threads have not run for a long time.

A watchdog is a thread, and in a process that is stopped (SIGSTOP, a debugger, a frozen container) no thread runs: Ray
would wait for it for ever, and its GPU with it. So a thread puts off a timer of the kernel's again and again. When it
does so no longer, the kernel sends SIGKILL, which ends stopped processes too, whether the run is still there or not.

POSIX timers (timer_create(2)) are had on Linux; elsewhere nothing is done.
"""

import ctypes
import signal
import threading
import time
from contextlib import suppress
from functools import cache

PUT_OFF_EVERY_S = 5.0
SIGEV_SIGNAL = 0
"""<signal.h>: the timer sends a signal to the process."""


@cache
def end_when_frozen(limit_s: float) -> None:
    """From now on this process is killed when for `limit_s` no thread of it runs. Once is enough."""
    timer = _kill_timer()
    if timer is not None:
        timer.start(limit_s)
        threading.Thread(target=_put_off, args=(timer, limit_s), daemon=True).start()


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
    """A timer of the kernel's that was created for this process."""

    def __init__(self, library: ctypes.CDLL, id_: ctypes.c_void_p) -> None:
        self._library = library
        self._id = id_

    def start(self, limit_s: float) -> None:
        """Go off once, in `limit_s` from now, and not at the time set before."""
        whole_s = int(limit_s)
        schedule = _Schedule(first_s=whole_s, first_ns=int((limit_s - whole_s) * 1e9))
        self._library.timer_settime(self._id, 0, ctypes.byref(schedule), None)


def _kill_timer() -> _Timer | None:
    """A timer whose signal is SIGKILL; None where the system has no such thing."""
    for name in (None, "librt.so.1"):  # before glibc 2.34 (2021) timers were in a library of their own
        with suppress(OSError):
            library = ctypes.CDLL(name)
            if hasattr(library, "timer_create"):
                id_ = ctypes.c_void_p()
                event = _SignalEvent(signal=signal.SIGKILL, notify=SIGEV_SIGNAL)
                made = library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(id_))
                return _Timer(library, id_) if made == 0 else None
    return None


def _put_off(timer: _Timer, limit_s: float) -> None:
    while True:
        time.sleep(min(PUT_OFF_EVERY_S, limit_s / 4))
        timer.start(limit_s)
