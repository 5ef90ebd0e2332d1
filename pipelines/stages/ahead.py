"""Computing micro-batches ahead, in threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

Compute = Callable[[list[int]], Sequence[Any]]
"""Rows -> their results."""


class Ahead:
    """A function of batches that may be started before its results are wanted."""

    def __init__(self, compute: Compute, pool: ThreadPoolExecutor) -> None:
        self.compute = compute
        self._pool = pool
        self._started: dict[tuple[int, ...], Future[Sequence[Any]]] = {}

    def start(self, batch: list[int]) -> None:
        """Start a batch in a thread."""
        self._started[tuple(batch)] = self._pool.submit(self.compute, batch)

    def __call__(self, batch: list[int]) -> Sequence[Any]:
        """Return the results of a batch, or raise its exception; a batch that was not started is computed here."""
        future = self._started.pop(tuple(batch), None)
        if future is None:
            return self.compute(batch)
        try:
            return future.result()
        finally:
            del future  # an exception refers to this frame, and would keep itself and its tensors alive


@contextmanager
def computing_ahead(compute: Compute, threads: int) -> Iterator[Ahead]:
    """Provide threads for `compute` in the body; at its end, batches that have not begun are dropped."""
    pool = ThreadPoolExecutor(threads, "batch")
    try:
        yield Ahead(compute, pool)
    finally:
        pool.shutdown(cancel_futures=True)
