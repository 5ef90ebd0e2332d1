"""What the stages took travels with the chunk, and changes nothing else."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.engine import blocks
from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import chunk_of
from pipelines.stages.microbatches import MicroBatches
from pipelines.stages.task import UNWATCHED
from pipelines.stages.timed import WatchedModel, WatchedPublish, WatchedRead
from tests.support.stages import Rows, count, make_chunk


class Batched:
    """A model of micro-batches of at most three rows that takes 20 ms each."""

    def __init__(self) -> None:
        self.batches = MicroBatches(8)

    def __call__(self, block: pa.Table, attempt: Attempt = UNWATCHED) -> pa.Table:
        self.batches.start_counting()
        self.batches.run(range(block.num_rows), (8, 8), self._compute)
        return blocks.set_columns(block, {"length": block.column("position")}, drop=["payload"])

    def _compute(self, rows: list[int]) -> list[int]:
        if len(rows) > 3:
            raise MemoryError("out of memory")
        time.sleep(0.02)
        return rows


@dataclass(frozen=True)
class Description:
    def build(self) -> Batched:
        return Batched()


def publish(block: pa.Table, attempt: Attempt) -> Mapping[str, Any]:
    assert "measured" not in block.column_names
    return {**count(block, attempt), "bad": 0, "reasons": {}}


def test_seconds_and_batch_size_reach_the_receipt() -> None:
    block = WatchedRead(stage=Rows(10), job="test")(make_chunk(3, 6), UNWATCHED)
    assert chunk_of(block) == make_chunk(3, 6)
    actor = WatchedModel(stage=Description(), job="test").build()
    receipt = WatchedPublish(stage=publish, job="test")(actor(block, UNWATCHED), UNWATCHED)
    assert (receipt["chunk"], receipt["ok"], receipt["batch_size"]) == ("chunk-3", 6, 3)
    assert [*receipt["seconds"]] == ["read", "model", "publish"]
    assert receipt["seconds"]["model"] >= 0.04 and receipt["seconds"]["read"] > 0


def test_only_computing_counts_as_busy() -> None:
    batches = Batched().batches
    assert (batches.largest, batches.compute_s) == (0, 0.0)
    model = Batched()
    block = Rows(10)(make_chunk(0, 4))
    started = time.monotonic()
    model(block)
    assert 0.04 <= model.batches.compute_s <= time.monotonic() - started
    model(Rows(10)(make_chunk(0, 1)))
    assert model.batches.largest == 1, "of the last block, not of all"
