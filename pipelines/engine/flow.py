# Ray declares batches as dictionaries and does not declare its submodules.
# pyright: reportAttributeAccessIssue=false
"""The Ray Data graph: read (CPU tasks) -> models (actors) -> publish (CPU tasks), one row of the dataset per chunk.

This is the only file that tells Ray Data how to keep chunks whole: every call of a stage gets one row (`batch_size=1`),
and a row is a whole chunk. A job provides its parts, all lightweight and picklable: a `read` function, the
descriptions of one or several models that actors build, and a `publish` function. A chunk travels through the models
one after the other, while others are at other stages: the slowest stage sets the rate.
"""

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import CHUNK, Flow, ModelStage, block_of, chunk_of, with_block
from pipelines.engine.data_context import data_context
from pipelines.engine.gpu_meter import GpuTime
from pipelines.engine.ledger_client import LedgerClient, open_ledger
from pipelines.engine.resources import Resources
from pipelines.engine.turns import Turns
from pipelines.errors import FlowError
from pipelines.samples import Chunk

CHUNKS_IN_A_WAVE = 5_000
"""Ray Data keeps state for every block of a dataset on the driver, so long plans run as several datasets."""

ONE_ROW: Mapping[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
"""Options of `map_batches`."""

CHUNKS_IN_AN_ACTOR = 2
"""Chunks on which an actor works at a time."""

RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(:|$)")
"""The line of a traceback that names the exception."""


def run_flow(
    chunks: Sequence[Chunk],
    flow: Flow,
    resources: Resources,
    on_failure: Callable[[str], None] = print,
    gpu_time: GpuTime | None = None,
) -> Iterator[dict[str, Any]]:
    """Process the chunks and yield the receipt of each one as it is published, in no particular order.

    Args:
        chunks: What to process.
        flow: The stages.
        resources: What the stages get, and how many chunks may fail.
        on_failure: Called with the reason of the failure, once for each failed chunk that `resources` allows.
        gpu_time: The GPU time of the run and its limit. If the actors have GPUs, each receipt has `gpu_s`, the GPU
            seconds so far.

    Raises:
        FlowError: More chunks failed, or the model could not be built.
        GpuLimitError: The limit of GPU time was reached; the chunks that had begun are finished.
    """
    gpu_time = gpu_time or GpuTime()
    remaining = iter(chunks)
    while wave := list(islice(remaining, CHUNKS_IN_A_WAVE)):
        with (
            data_context(resources, lambda error: on_failure(_cause(error))),
            open_ledger(resources.chunk_timeout_s, gpu_time.meter()) as ledger,
        ):
            receipts = _receipts(_dataset(wave, flow, resources, ledger))
            yield from _metered(receipts, ledger, gpu_time) if resources.gpus else receipts


def _dataset(wave: Sequence[Chunk], flow: Flow, resources: Resources, ledger: LedgerClient) -> "ray.data.Dataset":
    """The stages of a wave of chunks."""
    rows = [{CHUNK: chunk.to_json()} for chunk in wave]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Read(flow.read, ledger), num_cpus=resources.cpus_per_task, **ONE_ROW
    )
    for stage in flow.models:
        own = resources.of(stage.name)
        dataset = dataset.map_batches(
            _Model,
            fn_constructor_args=(stage, ledger, own.gpus_per_actor, stage is flow.models[0]),
            compute=_actor_pool(own, len(wave)),
            num_gpus=own.gpus_per_actor or None,
            num_cpus=own.cpus_per_actor,
            **ONE_ROW,
        )
    return dataset.map_batches(_Publish(flow.publish, ledger), num_cpus=resources.cpus_per_task, **ONE_ROW)


def run_tasks(
    tasks: Sequence[Any], work: Callable[[Any], Mapping[str, Any]], cpus_per_task: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Call `work(task)` for every task, each in a CPU task of its own, and yield the receipts as they arrive.

    For jobs without a model, such as writing shards. A `task` may be anything picklable.

    Raises:
        FlowError: A task raised, or its process died again and again.
    """
    yield from run_supervised(tasks, partial(_without_attempt, work), cpus_per_task)


def run_supervised(
    tasks: Iterable[Any], work: Callable[[Any, Attempt], Mapping[str, Any]], cpus_per_task: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Call `work(task, attempt)` as `run_tasks` does; it processes samples one by one if the attempt says so."""
    remaining = iter(tasks)
    while wave := list(islice(remaining, CHUNKS_IN_A_WAVE)):
        with data_context(Resources(), lambda error: print(_cause(error))), open_ledger(None) as ledger:
            rows = [{"number": at, "task": ray.cloudpickle.dumps(task)} for at, task in enumerate(wave)]
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Task(work, ledger), num_cpus=cpus_per_task, **ONE_ROW
            )
            yield from _receipts(dataset)


def _actor_pool(resources: Resources, chunks: int) -> ActorPoolStrategy:
    """Let every actor work on two chunks, so that its device works on one while the other one is unpacked or packed.

    A pool that grows has more chunks in flight: Ray Data adds an actor only where some wait for one.
    """
    most = min(resources.actors, chunks)
    fewest = min(resources.fewest_actors or most, most)
    return ActorPoolStrategy(
        min_size=fewest,
        max_size=most,
        max_tasks_in_flight_per_actor=CHUNKS_IN_AN_ACTOR * (1 if fewest == most else 2),
        max_concurrent_calls_per_actor=CHUNKS_IN_AN_ACTOR,
        enable_true_multi_threading=True,
    )


class _Read:
    def __init__(self, read: Callable[[Chunk, Attempt], pa.Table], ledger: LedgerClient) -> None:
        self.read = read
        self.ledger = ledger
        self.__name__ = "Read"

    def __call__(self, row: pa.Table) -> pa.Table:
        if not self.ledger.may_read():
            return row.slice(0, 0)
        chunk = chunk_of(row)
        with self.ledger.attempt("read", chunk.name, bool(chunk.only)) as attempt:
            return with_block(row, self.read(chunk, attempt))


class _Model:
    def __init__(self, stage: ModelStage, ledger: LedgerClient, gpus: float, is_first: bool) -> None:
        self.stage, self.ledger, self.gpus = stage.name, ledger, gpus
        self.is_first = is_first
        """Whether chunks begin here: one that has begun is finished, whatever the limit of GPU time."""
        self.turns = Turns()
        with ledger.building(gpus):
            self.model = stage.model.build()

    def __call__(self, row: pa.Table) -> pa.Table:
        chunk = chunk_of(row)
        if self.is_first and not self.ledger.may_begin(chunk.name, self.gpus):
            return row.slice(0, 0)
        block = block_of(chunk, row)
        with self.ledger.attempt(self.stage, chunk.name, bool(chunk.only), self.turns) as attempt:
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
    def __init__(self, work: Callable[[Any, Attempt], Mapping[str, Any]], ledger: LedgerClient) -> None:
        self.work = work
        self.ledger = ledger
        self.__name__ = "Task"

    def __call__(self, row: pa.Table) -> pa.Table:
        number, task = (row.column(name)[0].as_py() for name in ("number", "task"))
        with self.ledger.attempt("task", f"number {number}") as attempt:
            return _receipt_row(self.work(ray.cloudpickle.loads(task), attempt))


def _without_attempt(work: Callable[[Any], Mapping[str, Any]], task: Any, attempt: Attempt) -> Mapping[str, Any]:
    return work(task)


def _receipt_row(receipt: Mapping[str, Any]) -> pa.Table:
    return pa.table({"receipt": [json.dumps(receipt)]})


def _metered(
    receipts: Generator[dict[str, Any], None, None], ledger: LedgerClient, gpu_time: GpuTime
) -> Iterator[dict[str, Any]]:
    """Add the GPU time to the receipts of a wave; end the wave when the limit allows nothing more."""
    before_s, is_over = gpu_time.used_s, False
    with closing(receipts):
        for receipt in receipts:
            used_s, is_over = ledger.ask("gpu_time")
            gpu_time.used_s = before_s + used_s
            yield {**receipt, "gpu_s": gpu_time.used_s}
            if is_over:
                break
    if is_over or ledger.ask("gpu_time_is_spent"):
        gpu_time.used_s = before_s + ledger.ask("gpu_time")[0]
        raise gpu_time.error()


def _receipts(dataset: "ray.data.Dataset") -> Generator[dict[str, Any], None, None]:
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
