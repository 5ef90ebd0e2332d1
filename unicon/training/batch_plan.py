"""Which rows a training step sees, and which part of each: a function of the step and the seed. Imports no torch.

The rows of a step are its *global batch*. Workers share it by places, so that it does not depend on their number, and a
training that stops and goes on sees the same rows.

Rows of one group are drawn without repetition until all of them have been seen; then they are shuffled again. With
aspect buckets, the groups are the rows of one working size, and a step draws its group by the number of rows; without,
all rows are one group.

Tested in tests/unicon/training/test_batch_plan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from unicon.training.views import View, Views

GROUP_OF_STEP, ORDER, PARTS = range(3)
"""Streams of random numbers, so that none depends on how many numbers another takes."""
STEPS_DRAWN_TOGETHER = 4096
ORDERS_KEPT = 64


class PlannedBatch(NamedTuple):
    """The global batch of a step."""

    rows: tuple[int, ...]
    """Indices of the rows, by place."""
    views: tuple[View, ...]
    """The part of each row. All have one size."""

    def part(self, places: slice) -> PlannedBatch:
        """The batch of a worker."""
        return PlannedBatch(self.rows[places], self.views[places])


class BatchPlan:
    """The rows and views of every step."""

    def __init__(self, sizes: Sequence[tuple[int, int]], views: Views, batch_size: int, seed: int) -> None:
        """Plan the batches of a data set.

        Args:
            sizes: (width, height) of every row's upright image in pixels.
            views: How parts of images are drawn.
            batch_size: Rows of a global batch.
            seed: Seed of all choices.

        Raises:
            ValueError: There are no rows, or the batch has none.
        """
        if not len(sizes) or batch_size < 1:
            raise ValueError(
                f"A plan needs rows and a batch of at least 1; got {len(sizes)} rows and a batch of {batch_size}."
            )
        self.views, self.batch_size, self.seed = views, batch_size, seed
        self._sizes, self._groups = _grouped(sizes, views)
        self._shares = np.cumsum([len(group) for group in self._groups]) / len(sizes)
        self._drawn = np.zeros(0, np.int32)
        self._before: list[np.ndarray] = []

    def batch(self, step: int) -> PlannedBatch:
        """The global batch of a step."""
        group, count = self._group_of(step)
        rows = self._rows(group, count * self.batch_size)
        chances = np.random.default_rng((self.seed, PARTS, step)).random(1 + 4 * self.batch_size)
        size = self._sizes[group] if self.views.aspect_buckets else self.views.random_size(float(chances[0]))
        views = tuple(self.views.view(size, each) for each in chances[1:].reshape(-1, 4))
        return PlannedBatch(rows, views)

    def _group_of(self, step: int) -> tuple[int, int]:
        """(group of a step, number of earlier steps of the same group)."""
        if len(self._groups) == 1:
            return 0, step
        block, place = divmod(step, STEPS_DRAWN_TOGETHER)
        while len(self._before) <= block:
            self._draw_block(len(self._before))
        drawn = self._drawn[block * STEPS_DRAWN_TOGETHER :]
        group = int(drawn[place])
        return group, int(self._before[block][group] + (drawn[:place] == group).sum())

    def _draw_block(self, block: int) -> None:
        """Draw the groups of the next steps, and count the steps of every group before them."""
        chances = np.random.default_rng((self.seed, GROUP_OF_STEP, block)).random(STEPS_DRAWN_TOGETHER)
        self._before.append(np.bincount(self._drawn, minlength=len(self._groups)))
        self._drawn = np.append(self._drawn, np.searchsorted(self._shares, chances, side="right").astype(np.int32))

    def _rows(self, group: int, start: int) -> tuple[int, ...]:
        """The rows of a batch that begins at a place in the endless order of a group."""
        members = self._groups[group]
        rows = []
        for place in range(start, start + self.batch_size):
            epoch, index = divmod(place, len(members))
            rows.append(int(members[_order(self.seed, group, epoch, len(members))[index]]))
        return tuple(rows)


@lru_cache(ORDERS_KEPT)
def _order(seed: int, group: int, epoch: int, count: int) -> np.ndarray:
    """The order of the rows of a group in an epoch."""
    return np.random.default_rng((seed, ORDER, group, epoch)).permutation(count)


def _grouped(sizes: Sequence[tuple[int, int]], views: Views) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
    """The working sizes in use, and the rows of each."""
    if not views.aspect_buckets:
        return [(0, 0)], [np.arange(len(sizes))]
    working = {size: views.size_of(size) for size in set(sizes)}
    groups: dict[tuple[int, int], list[int]] = {}
    for row, size in enumerate(sizes):
        groups.setdefault(working[size], []).append(row)
    found = sorted(groups)
    return found, [np.array(groups[size]) for size in found]
