"""Batches are stacked rows; a worker's batch is its part of the global one."""

from __future__ import annotations

import pytest
import torch

from tests.support.pair_rows import KINDS, SIZES, draw_row, draw_rows
from unicon.training.batch_plan import BatchPlan
from unicon.training.batches import RowBatches, collate
from unicon.training.views import View, Views, view_row

VIEWS = Views(resolution_px=32, multiple=4, aspect_buckets=True)


def test_rows_are_stacked() -> None:
    rows = [view_row(draw_row(index, weight), View((32, 24)), KINDS) for index, weight in ((0, 0.0), (1, 2.5))]
    batch = collate(rows)
    assert batch.keys == ("row-000", "row-001") and batch.captions == ("", "a square")
    assert batch.weights.tolist() == [0.0, 2.5] and batch.mirrored == (False, False)
    assert batch.images.dtype == torch.uint8 and batch.images.shape == (2, 3, 24, 32)
    assert batch.maps["canny"].dtype == torch.uint8 and batch.maps["canny"].shape == (2, 1, 24, 32)
    ready = batch.to_model(torch.device("cpu"))
    assert ready.images.shape == ready.maps["depth"].shape == ready.maps["canny"].shape == (2, 3, 24, 32)
    assert float(ready.images.min()) >= -1 and float(ready.maps["depth"].max()) == pytest.approx(0.8, abs=0.01)
    one = batch.select([1])
    assert one.keys == ("row-001",) and torch.equal(one.maps["depth"], batch.maps["depth"][1:])
    assert batch.select([0, 1]) is batch


def test_workers_share_a_global_batch() -> None:
    source = RowBatches(draw_rows(12), BatchPlan(list(SIZES) * 6, VIEWS, 5, seed=0), KINDS)
    for step in (0, 3):
        whole, parts = source.batch(step, 0, 1), [source.batch(step, rank, 2) for rank in range(2)]
        assert [len(part.keys) for part in parts] == [3, 2]
        assert whole.keys == parts[0].keys + parts[1].keys
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))


def test_weights_are_numbers_of_at_least_0() -> None:
    with pytest.raises(ValueError, match="row 'row-000' has -1"):
        collate([view_row(draw_row(0, -1), View((32, 32)), {})])
