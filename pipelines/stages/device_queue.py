"""One thread for all work on a device, however many threads call the model."""

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from pipelines.stages.model_time import ModelTime

T = TypeVar("T")


@dataclass
class DeviceUse:
    """What some calls of the model use of the device."""

    order: int
    """Calls of a lower order come first."""
    device_s: float = 0.0
    """Seconds that their work took on the device."""
    rows: int = 0
    """Rows that succeeded."""


class DeviceQueue:
    """Runs calls from several threads on one thread of its own, one at a time.

    Compiled code and CUDA graphs belong to the thread that made them. Of the waiting calls, those of the lowest order
    come first, and among these the one that has waited the longest. The thread ends with the queue.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "device")
        self._lock, self._here = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[int, int, DeviceUse, Callable[[], Any], Future[Any]]] = []
        self._numbers = count()
        self._of_thread = threading.local()
        self.busy_s = 0.0
        """Seconds of all work so far."""
        self.time = ModelTime()

    @contextmanager
    def used_by(self, use: DeviceUse) -> Iterator[None]:
        """Count the calls that this thread makes in the body."""
        self._of_thread.use = use
        try:
            yield
        finally:
            del self._of_thread.use

    def run(self, call: Callable[[], T]) -> T:
        """Run a call on the thread of the device, and return its result or raise its exception."""
        use: DeviceUse = self._of_thread.use
        done: Future[T] = Future()
        with self._lock:
            heapq.heappush(self._waiting, (use.order, next(self._numbers), use, call, done))
        self._executor.submit(self._run_first)
        try:
            return done.result()
        finally:
            del done, call  # an exception refers to this frame, and would keep itself and its tensors alive

    def run_here(self, call: Callable[[], T]) -> T:
        """Run a call in this thread, while no other call of this method runs."""
        with self._here:
            started = time.monotonic()
            try:
                return call()
            finally:
                self._count(self._of_thread.use, started)

    def _run_first(self) -> None:
        with self._lock:
            _, _, use, call, done = heapq.heappop(self._waiting)
        started = time.monotonic()
        try:
            result = call()
        except BaseException as error:
            self._count(use, started)
            done.set_exception(error)
        else:
            self._count(use, started)
            done.set_result(result)
        finally:
            del done  # see `run`

    def _count(self, use: DeviceUse, started: float) -> None:
        ended = time.monotonic()
        use.device_s += ended - started
        self.busy_s += ended - started
        self.time.worked(started, ended)
