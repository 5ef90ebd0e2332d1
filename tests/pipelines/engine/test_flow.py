"""The Ray Data graph: chunks stay whole, failures are told."""

import pyarrow as pa
import pytest

from pipelines.engine.blocks import Flow, chunk_of
from pipelines.engine.resources import Resources
from pipelines.errors import FlowError
from tests.support.stages import Measure, Rows, Slow, count, double, make_chunk, processes


def test_a_block_that_is_not_its_chunk_is_refused() -> None:
    block = Rows(10)(make_chunk(0, 3))
    with pytest.raises(AssertionError, match="2 of 3 rows"):
        chunk_of(block.slice(0, 2))
    with pytest.raises(AssertionError, match="one chunk, whole"):
        chunk_of(block.slice(1))
    with pytest.raises(AssertionError, match="one chunk, whole"):
        chunk_of(pa.concat_tables([block, Rows(10)(make_chunk(1, 3))]))


@pytest.mark.parametrize(("actors", "gpus"), [(1, 0.0), (1, 1.0), (2, 0.5)])
def test_chunks_arrive_whole(ray_cluster: None, actors: int, gpus: float) -> None:
    from pipelines.engine.flow import run_flow

    chunks = [make_chunk(number, 8 + number) for number in range(6)]
    resources = Resources(actors=actors, gpus_per_actor=gpus, cpus_per_actor=0.5)
    receipts = list(run_flow(chunks, Flow(read=Rows(), model=Measure(), publish=count), resources))
    assert {receipt["chunk"]: receipt["ok"] for receipt in receipts} == {
        chunk.name: len(chunk.positions) for chunk in chunks
    }
    assert all(receipt["bytes"] == 100_000 * receipt["ok"] for receipt in receipts)


def test_a_lost_row_stops_the_run(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_flow

    flow = Flow(read=Rows(10), model=Measure(loses_in="chunk-1"), publish=count)
    with pytest.raises(FlowError, match="one chunk, whole"):
        list(run_flow([make_chunk(number, 4) for number in range(2)], flow, Resources()))


@pytest.mark.slow
def test_a_failed_chunk_leaves_the_others(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_flow

    flow = Flow(read=Rows(10), model=Measure(fails_in="chunk-1"), publish=count)
    chunks = [make_chunk(number, 4) for number in range(3)]
    told: list[str] = []
    receipts = list(run_flow(chunks, flow, Resources(failed_chunks_allowed=1), told.append))
    assert told == ["RuntimeError: the device fell off the bus"]
    assert {receipt["chunk"] for receipt in receipts} == {"chunk-0", "chunk-2"}


@pytest.mark.slow
def test_the_actor_pool_grows_while_chunks_wait(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_flow

    flow = Flow(read=Rows(10), model=Slow(1.5), publish=processes)
    resources = Resources(actors=3, fewest_actors=1, gpus_per_actor=0.25, cpus_per_actor=0.25, cpus_per_task=0.25)
    receipts = list(run_flow([make_chunk(number, 2) for number in range(16)], flow, resources))
    assert len({receipt["chunk"] for receipt in receipts}) == 16
    assert 1 < len({process for receipt in receipts for process in receipt["processes"]}) <= 3


def test_tasks_without_a_model(ray_cluster: None) -> None:
    from pipelines.engine.flow import run_tasks

    receipts = run_tasks(range(5), double, cpus_per_task=0.5)
    assert sorted(receipt["double"] for receipt in receipts) == [0, 2, 4, 6, 8]
