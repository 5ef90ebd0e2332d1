# Ray declares batches as dictionaries and does not declare its submodules.
# pyright: reportAttributeAccessIssue=false
"""The Ray Data graph: read (CPU tasks) -> model (actors) -> publish (CPU tasks), one row of the dataset per chunk.

This is the only file that tells Ray Data how to keep chunks whole: every call of a stage gets one row (`batch_size=1`),
and a row is a whole chunk. A job provides three parts, all lightweight and picklable: a `read` function, the
description of a model that an actor builds, and a `publish` function.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import CHUNK, BlockModelDescription, Flow, block_of, chunk_of, with_block
from pipelines.engine.data_context import data_context
from pipelines.engine.ledger_client import LedgerClient, open_ledger
from pipelines.engine.resources import Resources
from pipelines.errors import FlowError
from pipelines.samples import Chunk

CHUNKS_IN_A_WAVE = 5_000
"""Ray Data keeps state for every block of a dataset on the driver, so long plans run as several datasets."""

ONE_ROW: Mapping[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
"""Options of `map_batches`."""

RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(:|$)")
"""The line of a traceback that names the exception."""


def run_flow(
    chunks: Sequence[Chunk], flow: Flow, resources: Resources, on_failure: Callable[[str], None] = print
) -> Iterator[dict[str, Any]]:
    """Process the chunks and yield the receipt of each one as it is published, in no particular order.

    Args:
        chunks: What to process.
        flow: The stages.
        resources: What the stages get, and how many chunks may fail.
        on_failure: Called with the reason of the failure, once for each failed chunk that `resources` allows.

    Raises:
        FlowError: More chunks failed, or the model could not be built.
    """
    remaining = iter(chunks)
    while wave := list(islice(remaining, CHUNKS_IN_A_WAVE)):
        with (
            data_context(resources, lambda error: on_failure(_cause(error))),
            open_ledger(resources.chunk_timeout_s) as ledger,
        ):
            rows = [{CHUNK: chunk.to_json()} for chunk in wave]
            dataset = (
                ray.data.from_items(rows, override_num_blocks=len(rows))
                .map_batches(_Read(flow.read, ledger), num_cpus=resources.cpus_per_task, **ONE_ROW)
                .map_batches(
                    _Model,
                    fn_constructor_args=(flow.model, ledger),
                    compute=_actor_pool(resources, len(wave)),
                    num_gpus=resources.gpus_per_actor or None,
                    num_cpus=resources.cpus_per_actor,
                    **ONE_ROW,
                )
                .map_batches(_Publish(flow.publish, ledger), num_cpus=resources.cpus_per_task, **ONE_ROW)
            )
            yield from _receipts(dataset)


def run_tasks(
    tasks: Sequence[Any], work: Callable[[Any], Mapping[str, Any]], cpus_per_task: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Call `work(task)` for every task, each in a CPU task of its own, and yield the receipts as they arrive.

    For jobs without a model, such as writing shards. A `task` may be anything picklable.

    Raises:
        FlowError: A task raised, or its process died again and again.
    """
    remaining = iter(tasks)
    while wave := list(islice(remaining, CHUNKS_IN_A_WAVE)):
        with data_context(Resources(), lambda error: print(_cause(error))), open_ledger(None) as ledger:
            rows = [{"number": number} for number in range(len(wave))]
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Task(tuple(wave), work, ledger), num_cpus=cpus_per_task, **ONE_ROW
            )
            yield from _receipts(dataset)


def _actor_pool(resources: Resources, chunks: int) -> ActorPoolStrategy:
    """Allow two chunks in flight for each actor, so that the next one is there when the actor has finished one."""
    most = min(resources.actors, chunks)
    fewest = min(resources.fewest_actors or most, most)
    return ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=2)


class _Read:
    def __init__(self, read: Callable[[Chunk, Attempt], pa.Table], ledger: LedgerClient) -> None:
        self.read = read
        self.ledger = ledger
        self.__name__ = "Read"

    def __call__(self, row: pa.Table) -> pa.Table:
        chunk = chunk_of(row)
        with self.ledger.attempt("read", chunk.name, bool(chunk.only)) as attempt:
            return with_block(row, self.read(chunk, attempt))


class _Model:
    def __init__(self, description: BlockModelDescription, ledger: LedgerClient) -> None:
        self.ledger = ledger
        with ledger.building():
            self.model = description.build()

    def __call__(self, row: pa.Table) -> pa.Table:
        chunk = chunk_of(row)
        block = block_of(chunk, row)
        with self.ledger.attempt("model", chunk.name, bool(chunk.only)) as attempt:
            return with_block(row, self.model(chunk, block, attempt))


class _Publish:
    def __init__(self, publish: Callable[[Chunk, pa.Table, Attempt], Mapping[str, Any]], ledger: LedgerClient) -> None:
        self.publish = publish
        self.ledger = ledger
        self.__name__ = "Publish"

    def __call__(self, row: pa.Table) -> pa.Table:
        chunk = chunk_of(row)
        block = block_of(chunk, row)
        with self.ledger.attempt("publish", chunk.name, bool(chunk.only)) as attempt:
            return _receipt_row(self.publish(chunk, block, attempt))


class _Task:
    def __init__(self, tasks: tuple[Any, ...], work: Callable[[Any], Mapping[str, Any]], ledger: LedgerClient) -> None:
        self.tasks = tasks
        self.work = work
        self.ledger = ledger
        self.__name__ = "Task"

    def __call__(self, row: pa.Table) -> pa.Table:
        (number,) = row.column("number").to_pylist()
        with self.ledger.attempt("task", f"number {number}"):
            return _receipt_row(self.work(self.tasks[number]))


def _receipt_row(receipt: Mapping[str, Any]) -> pa.Table:
    return pa.table({"receipt": [json.dumps(receipt)]})


def _receipts(dataset: "ray.data.Dataset") -> Iterator[dict[str, Any]]:
    try:
        batches: Iterable[Any] = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for batch in batches:
            for text in batch.column("receipt").to_pylist() if batch.num_rows else ():
                yield json.loads(text)
    except RayError as error:
        raise FlowError(_cause(error)) from error


def _cause(error: BaseException) -> str:
    """What went wrong in the worker: the line of the innermost exception, without Ray's wrapping and the frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.match(line) and not line.startswith("ray.")]
    return (raised or lines or [repr(error)])[-1]
