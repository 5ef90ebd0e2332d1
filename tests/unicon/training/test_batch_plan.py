"""A step's rows and views follow from its number and the seed; every row is seen once before any is seen twice."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from unicon.training.batch_plan import STEPS_DRAWN_TOGETHER, BatchPlan
from unicon.training.views import Views

BUCKETS = Views(resolution_px=64, multiple=8, aspect_buckets=True)
SIZES = [(64, 64)] * 24 + [(96, 48)] * 8


def test_rows_of_a_step_have_one_size_of_their_own() -> None:
    plan = BatchPlan(SIZES, BUCKETS, 4, seed=1)
    counts = Counter[int]()
    for step in range(800):
        batch = plan.batch(step)
        (size,) = {view.size for view in batch.views}
        assert all(BUCKETS.size_of(SIZES[row]) == size for row in batch.rows)
        counts.update(batch.rows)
    assert set(counts) == set(range(32)) and min(counts.values()) > 70 and max(counts.values()) < 130


def test_a_group_is_seen_once_in_every_epoch() -> None:
    plan = BatchPlan([(64, 64)] * 10, BUCKETS, 4, seed=0)
    rows = [row for step in range(10) for row in plan.batch(step).rows]
    epochs = [rows[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_step_does_not_depend_on_the_steps_before_it() -> None:
    steps = (0, 7, STEPS_DRAWN_TOGETHER - 1, STEPS_DRAWN_TOGETHER, 3 * STEPS_DRAWN_TOGETHER + 5)
    forward = [BatchPlan(SIZES, BUCKETS, 4, seed=2).batch(step) for step in steps]
    plan = pickle.loads(pickle.dumps(BatchPlan(SIZES, BUCKETS, 4, seed=2)))
    assert [plan.batch(step) for step in reversed(steps)] == forward[::-1]
    assert BatchPlan(SIZES, BUCKETS, 4, seed=3).batch(7) != forward[1]


def test_groups_smaller_than_a_batch_are_trained_too() -> None:
    plan = BatchPlan([(64, 64)] * 3, BUCKETS, 4, seed=0)
    assert sorted(plan.batch(0).rows[:3]) == [0, 1, 2] and len(plan.batch(0).rows) == 4


def test_without_buckets_every_step_has_a_random_shape() -> None:
    plan = BatchPlan(SIZES, Views(resolution_px=64, multiple=8), 4, seed=0)
    batches = [plan.batch(step) for step in range(40)]
    assert all(len({view.size for view in batch.views}) == 1 for batch in batches)
    assert len({batch.views[0].size for batch in batches}) > 3
    views = [view for batch in batches for view in batch.views]
    assert np.mean([view.mirrored for view in views]) == pytest.approx(0.5, abs=0.15)
    assert 0.8 <= min(view.zoom for view in views) < 0.85


def test_parts_that_are_not_random() -> None:
    plan = BatchPlan(SIZES, Views(resolution_px=64, multiple=8, random_crop=False), 4, seed=0)
    assert {(view.zoom, view.left, view.top) for view in plan.batch(0).views} == {(1.0, 0.5, 0.5)}


def test_a_plan_needs_rows() -> None:
    with pytest.raises(ValueError, match="got 0 rows"):
        BatchPlan([], BUCKETS, 4, seed=0)
