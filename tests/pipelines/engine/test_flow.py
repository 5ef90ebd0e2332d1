"""The Ray Data graph: chunks stay whole, and failures are reported."""

from dataclasses import replace

import pyarrow as pa
import pytest

from pipelines.engine.blocks import Flow, ModelStage, block_of, check_block, chunk_of, with_block
from pipelines.engine.resources import Resources
from pipelines.errors import FlowError
from tests.support.stages import Measure, Rows, Slow, Triple, count, double, make_chunk, processes


def test_a_block_that_is_not_its_chunk_is_refused() -> None:
    chunk = make_chunk(0, 3)
    block = Rows(10)(chunk)
    for wrong in (block.slice(0, 2), block.slice(1), block.slice(3), block.take([1, 0, 2])):
        with pytest.raises(AssertionError, match=f"one chunk, whole; {wrong.num_rows} of 3 rows"):
            check_block(chunk, wrong)
    with pytest.raises(AssertionError, match="one chunk, whole; 6 of 3 rows"):
        check_block(chunk, pa.concat_tables([block, Rows(10)(make_chunk(1, 3))]))


def test_a_block_travels_in_one_row_without_a_copy() -> None:
    chunk = make_chunk(0, 3)
    block = Rows(10)(chunk)
    row = with_block(pa.table({"chunk": [chunk.to_json()]}), block)
    assert row.num_rows == 1 and chunk_of(row) == chunk
    arrived = block_of(chunk, row)
    assert arrived.equals(block) and arrived.schema == block.schema
    before, after = (table.column("payload").chunk(0).buffers()[-1] for table in (block, arrived))
    assert before.address == after.address
    with pytest.raises(AssertionError, match="2 of 3 rows"):
        block_of(chunk, with_block(row, block.slice(1)))
    with pytest.raises(AssertionError, match="0 of 3 rows"):
        block_of(chunk, with_block(row, block.slice(3)))
    with pytest.raises(AssertionError, match="one chunk at a time, not 2"):
        chunk_of(pa.concat_tables([row, row]))


@pytest.mark.parametrize(("actors", "gpus"), [(1, 0.0), (1, 1.0), (2, 0.5)])
def test_chunks_arrive_whole(ray_cluster: None, actors: int, gpus: float) -> None:
    from pipelines.engine.flow import run_flow

    chunks = [make_chunk(number, 8 + number) for number in range(6)]
    resources = Resources(actors=actors, gpus_per_actor=gpus, cpus_per_actor=0.5)
    receipts = list(
        run_flow(chunks, Flow(read=Rows(), models=(ModelStage(model=Measure()),), publish=count), resources)
    )
    assert {receipt["chunk"]: receipt["ok"] for receipt in receipts} == {
        chunk.name: len(chunk.positions) for chunk in chunks
    }
    assert all(receipt["bytes"] == 100_000 * receipt["ok"] for receipt in receipts)


def test_chunks_pass_through_all_models(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_flow

    chunks = [make_chunk(number, 4) for number in range(4)]
    models = (ModelStage(model=Measure()), ModelStage(model=Triple(), name="triple"))
    resources = Resources(cpus_per_actor=0.25, cpus_per_task=0.25)
    own = {"triple": replace(resources, actors=2, gpus_per_actor=0.25)}
    resources = replace(resources, by_stage=own)
    receipts = list(run_flow(chunks, Flow(read=Rows(10), models=models, publish=count), resources))
    assert {receipt["chunk"]: receipt["bytes"] for receipt in receipts} == {chunk.name: 120 for chunk in chunks}
    assert all(receipt["gpu_s"] > 0 for receipt in receipts), "the GPUs of the second model count"


def test_a_lost_row_stops_the_run(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_flow

    flow = Flow(read=Rows(10), models=(ModelStage(model=Measure(loses_in="chunk-1")),), publish=count)
    with pytest.raises(FlowError, match="one chunk, whole"):
        list(run_flow([make_chunk(number, 4) for number in range(2)], flow, Resources()))


@pytest.mark.slow
def test_a_failed_chunk_leaves_the_others(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_flow

    flow = Flow(read=Rows(10), models=(ModelStage(model=Measure(fails_in="chunk-1")),), publish=count)
    chunks = [make_chunk(number, 4) for number in range(3)]
    failures: list[str] = []
    receipts = list(run_flow(chunks, flow, Resources(failed_chunks_allowed=1), failures.append))
    assert failures == ["RuntimeError: the device fell off the bus"]
    assert {receipt["chunk"] for receipt in receipts} == {"chunk-0", "chunk-2"}


@pytest.mark.slow
def test_the_actor_pool_grows_while_chunks_wait(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_flow

    flow = Flow(read=Rows(10), models=(ModelStage(model=Slow(1.5)),), publish=processes)
    resources = Resources(actors=3, fewest_actors=1, gpus_per_actor=0.25, cpus_per_actor=0.25, cpus_per_task=0.25)
    receipts = list(run_flow([make_chunk(number, 2) for number in range(16)], flow, resources))
    assert len({receipt["chunk"] for receipt in receipts}) == 16
    assert 1 < len({process for receipt in receipts for process in receipt["processes"]}) <= 3


def test_tasks_without_a_model(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_tasks

    receipts = run_tasks(range(5), double, cpus_per_task=0.5)
    assert sorted(receipt["double"] for receipt in receipts) == [0, 2, 4, 6, 8]
