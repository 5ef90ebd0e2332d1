"""The durations of the stages travel with the chunk and change nothing else."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.engine import blocks
from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import check_block
from pipelines.samples import Chunk
from pipelines.stages.microbatches import MicroBatches
from pipelines.stages.task import UNSUPERVISED
from pipelines.stages.timed import TimedModel, TimedPublish, TimedRead
from tests.support.stages import Rows, count, make_chunk


class Batched:
    """A model that computes micro-batches of at most three rows in 20 ms each."""

    def __init__(self) -> None:
        self.batches = MicroBatches(8)

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt = UNSUPERVISED) -> pa.Table:
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


def publish(chunk: Chunk, block: pa.Table, attempt: Attempt) -> Mapping[str, Any]:
    assert "measured" not in block.column_names
    return {**count(chunk, block, attempt), "bad": 0, "reasons": {}}


def test_seconds_and_batch_size_reach_the_receipt() -> None:
    chunk = make_chunk(3, 6)
    block = TimedRead(stage=Rows(10), job="test")(chunk, UNSUPERVISED)
    check_block(chunk, block)
    description: Any = Description()
    actor = TimedModel(stage=description, job="test").build()
    receipt = TimedPublish(stage=publish, job="test")(chunk, actor(chunk, block, UNSUPERVISED), UNSUPERVISED)
    assert (receipt["chunk"], receipt["ok"], receipt["batch_size"]) == ("chunk-3", 6, 3)
    assert [*receipt["seconds"]] == ["read", "model", "publish"]
    assert receipt["seconds"]["model"] >= 0.04 and receipt["seconds"]["read"] > 0


def test_only_computing_counts_as_busy() -> None:
    batches = Batched().batches
    assert (batches.largest, batches.compute_s) == (0, 0.0)
    model = Batched()
    chunk, next_chunk = make_chunk(0, 4), make_chunk(0, 1)
    block = Rows(10)(chunk)
    started = time.monotonic()
    model(chunk, block)
    assert 0.04 <= model.batches.compute_s <= time.monotonic() - started
    model(next_chunk, Rows(10)(next_chunk))
    assert model.batches.largest == 1, "of the last block, not of all"
