"""The order of training: which rows a step trains, as a function of (seed, step) alone.

An epoch visits every group once, in random order. Neighboring groups form a window, which is read as a whole; its rows
are shuffled and cut into batches of one working size (`pipelines.training.windows`). A window has as many batches as
its rows fill, the last one completed with other rows of the window. So the first step of every window follows from the
numbers of rows alone, and training continues at any step with any number of workers.

Tested in tests/pipelines/training/test_order.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

WINDOW_ROWS = 1024
"""Rows that are shuffled together, at least; and at least 16 batches, so that few rows are used twice in an epoch."""
WINDOW_BATCHES = 16
WINDOW_BYTES = 256 << 20
"""A window ends where it reaches this size, since the task that reads it holds it in memory."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Groups that are read together, and the steps that train their rows."""

    epoch: int
    number: int
    """Number in its epoch."""
    groups: tuple[int, ...]
    rows: int
    """Number of rows in use."""
    first_step: int
    steps: int


class Order:
    """The windows of a training.

    Args:
        rows: Number of rows in use of every group.
        sizes_bytes: Stored size of every group.
        batch_size: Rows of a step, of all workers together.
        seed: Seed of the order.
    """

    def __init__(self, rows: Sequence[int], sizes_bytes: Sequence[int], batch_size: int, seed: int) -> None:
        assert len(rows) == len(sizes_bytes) and min(rows, default=0) > 0
        self.rows, self.sizes_bytes = np.asarray(rows), np.asarray(sizes_bytes)
        self.batch_size, self.seed = batch_size, seed
        self.least_rows = max(WINDOW_ROWS, WINDOW_BATCHES * batch_size)

    def windows(self, first_step: int, stop_step: int) -> Iterator[Window]:
        """Yield the windows that train the steps [first_step, stop_step), in their order."""
        for window in self._all_windows():
            if window.first_step >= stop_step:
                return
            if window.first_step + window.steps > first_step:
                yield window

    def _all_windows(self) -> Iterator[Window]:
        step, epoch = 0, 0
        while True:
            for number, groups in enumerate(self.groups_of_windows(epoch)):
                rows = int(self.rows[list(groups)].sum())
                steps = -(-rows // self.batch_size)
                yield Window(epoch=epoch, number=number, groups=groups, rows=rows, first_step=step, steps=steps)
                step += steps
            epoch += 1

    @lru_cache(maxsize=2)  # noqa: B019
    def groups_of_windows(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        """Return the groups of every window of an epoch."""
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows)).tolist()
        windows: list[tuple[int, ...]] = []
        current: list[int] = []
        rows = size_bytes = 0
        for group in shuffled:
            if current and (rows >= self.least_rows or size_bytes + self.sizes_bytes[group] > WINDOW_BYTES):
                windows.append(tuple(current))
                current, rows, size_bytes = [], 0, 0
            current.append(group)
            rows, size_bytes = rows + int(self.rows[group]), size_bytes + int(self.sizes_bytes[group])
        return (*windows, tuple(current))


def batches_of_window(
    sizes: Sequence[tuple[int, int]], batch_size: int, generator: np.random.Generator
) -> list[tuple[tuple[int, int], list[int]]]:
    """Cut the rows of a window into batches of one working size.

    Rows that fill no batch of their own size are put together by their aspect ratio; such a batch has the size of its
    middle row. The last one is completed with other rows, from the beginning of the shuffled window.

    Args:
        sizes: Working size (width, height) of every row.
        batch_size: Rows of a batch.
        generator: Random numbers of the window.

    Returns:
        (working size, row numbers) of every batch, in random order.
    """
    shuffled = generator.permutation(len(sizes)).tolist()
    by_size: dict[tuple[int, int], list[int]] = {}
    for row in shuffled:
        by_size.setdefault(sizes[row], []).append(row)
    batches, rest = [], []
    for size, rows in by_size.items():
        full = len(rows) // batch_size * batch_size
        batches += [(size, rows[start : start + batch_size]) for start in range(0, full, batch_size)]
        rest += rows[full:]
    rest.sort(key=lambda row: sizes[row][0] / sizes[row][1])
    for start in range(0, len(rest), batch_size):
        rows = rest[start : start + batch_size]
        size = sizes[rows[len(rows) // 2]]
        missing = batch_size - len(rows)
        batches.append((size, rows + [shuffled[at % len(shuffled)] for at in range(missing)]))
    return [batches[at] for at in generator.permutation(len(batches)).tolist()]
