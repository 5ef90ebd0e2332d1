"""The durations of the stages travel with the chunk and change nothing else."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import check_block, new_block
from pipelines.samples import Chunk
from pipelines.stages.compute import ComputeRows
from pipelines.stages.task import COMMON, UNSUPERVISED
from pipelines.stages.timed import TimedModel, TimedPublish, TimedRead
from tests.support.stages import count, make_chunk


@dataclass(frozen=True)
class Batched:
    """Task, description and model in one: batches of at most three rows, which use the device for 20 ms each."""

    run: Callable[[Callable[[], Any]], Any] = lambda call: call()
    inputs = pa.schema([("payload", pa.large_binary())])
    results = pa.schema([("length", pa.int64())])
    seeds_by_shard = False

    def build(self) -> "Batched":
        return self

    def in_turns(self, run: Callable[[Callable[[], Any]], Any]) -> "Batched":
        return Batched(run)

    def working_size(self, model: Any, row: Any) -> tuple[int, int]:
        return 8, 8

    def compute(self, model: "Batched", rows: Any, seeds: Any) -> list[dict[str, int]]:
        if len(rows) > 3:
            raise MemoryError("out of memory")
        model.run(lambda: time.sleep(0.02))
        time.sleep(0.01)
        return [{"length": len(row["payload"])} for row in rows]


def read(chunk: Chunk, attempt: Attempt) -> pa.Table:
    rows = [{"position": at, "key": str(at), "payload": bytes(10)} for at in chunk.positions]
    return new_block(chunk, rows, pa.schema([*COMMON, *Batched.inputs]))


def publish(chunk: Chunk, block: pa.Table, attempt: Attempt) -> Mapping[str, Any]:
    assert "measured" not in block.column_names
    return {**count(chunk, block, attempt), "bad": 0, "reasons": {}}


def test_seconds_and_batch_size_reach_the_receipt() -> None:
    chunk = make_chunk(3, 8)
    block = TimedRead(stage=read, job="test")(chunk, UNSUPERVISED)
    check_block(chunk, block)
    task: Any = Batched()
    actor = TimedModel(stage=ComputeRows(task=task, model=task, run_seed=0, batch_size=6), job="test").build()
    receipt = TimedPublish(stage=publish, job="test")(chunk, actor(chunk, block, UNSUPERVISED), UNSUPERVISED)
    assert (receipt["chunk"], receipt["ok"], receipt["bytes"], receipt["batch_size"]) == ("chunk-3", 8, 80, 3)
    assert [*receipt["seconds"]] == ["read", "model", "publish"]
    assert receipt["seconds"]["model"] >= receipt["device_s"] >= 0.06 and receipt["seconds"]["read"] > 0
    last = make_chunk(0, 1)
    receipt = TimedPublish(stage=publish, job="test")(
        last, actor(last, TimedRead(stage=read, job="test")(last, UNSUPERVISED), UNSUPERVISED), UNSUPERVISED
    )
    assert receipt["batch_size"] == 1, "of the last block, not of all"
