"""The Ray Data graph: read (CPU pool) -> model (actors) -> publish (CPU pool), one block a chunk.

The only file that knows how Ray Data is told to keep chunks whole. A job brings three pieces, all light and picklable:
a `read` function, the description of a model that an actor builds, and a `publish` function.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.engine.attempts import Attempt, building, watched
from pipelines.engine.blocks import BlockModelDescription, Flow, chunk_of
from pipelines.engine.ledger import Ledger
from pipelines.engine.resources import Resources
from pipelines.errors import FlowError
from pipelines.samples import Chunk

CHUNKS_IN_A_WAVE = 5_000
"""Ray Data keeps bookkeeping for every block of a dataset on the driver: long plans run as several datasets."""

PATIENCE = 5
"""So many time limits of a chunk may pass without progress: a sample that hangs is found after three."""


OnFailure = Callable[[str], None]

RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(:|$)")
"""The line of a traceback that names the exception."""


def run_flow(
    chunks: Sequence[Chunk], flow: Flow, resources: Resources, on_failure: OnFailure = print
) -> Iterator[dict[str, Any]]:
    """Process the chunks and yield each one's receipt as it is published, in no particular order.

    on_failure: told why, for each of the chunks that `resources` allows to fail.

    Raises:
        FlowError: more chunks failed, or the model could not be built.
    """
    remaining = iter(chunks)
    while wave := list(islice(remaining, CHUNKS_IN_A_WAVE)):
        with _data_context(resources, on_failure), _watch(resources.chunk_timeout_s) as watch:
            rows = [{"description": chunk.to_json()} for chunk in wave]
            dataset = (
                ray.data.from_items(rows, override_num_blocks=len(rows))
                .map_batches(_Read(flow.read, watch), num_cpus=resources.cpus_per_task, **_BLOCKS)
                .map_batches_internal(  # map_batches refuses GPUs for whole blocks, whose micro-batches are ours
                    _Model,
                    fn_constructor_args=(flow.model, watch),
                    compute=_actor_pool(resources, len(wave)),
                    num_gpus=resources.gpus_per_actor or None,
                    num_cpus=resources.cpus_per_actor,
                    **_BLOCKS,
                )
                .map_batches(_Publish(flow.publish, watch), num_cpus=resources.cpus_per_task, **_BLOCKS)
            )
            yield from _receipts(dataset)


def _actor_pool(resources: Resources, chunks: int) -> ActorPoolStrategy:
    """Two chunks an actor in flight, so that the next one is there when it has done one."""
    most = min(resources.actors, chunks)
    fewest = min(resources.fewest_actors or most, most)
    return ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=2)


def run_tasks(
    tasks: Sequence[Any], work: Callable[[Any], Mapping[str, Any]], cpus_per_task: float = 1.0
) -> Iterator[dict[str, Any]]:
    """`work(task)` for every task, each in a CPU task of its own; yields the receipts as they come.

    `task` may be anything picklable. For jobs without a model, such as writing shards.

    Raises:
        FlowError: a task raised, or its process died again and again.
    """
    remaining = iter(tasks)
    while wave := list(islice(remaining, CHUNKS_IN_A_WAVE)):
        with _data_context(Resources(), print), _watch(None) as watch:
            rows = [{"number": number} for number in range(len(wave))]
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Task(tuple(wave), work, watch), num_cpus=cpus_per_task, **_BLOCKS
            )
            yield from _receipts(dataset)


_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


@dataclass(frozen=True)
class _Watch:
    """What the workers hold of the ledger, an actor."""

    ledger: Any
    chunk_timeout_s: float | None

    def attempt(self, stage: str, name: str, failed_before: bool = False) -> AbstractContextManager[Attempt]:
        """Around a stage of a chunk; see `watched`."""
        return watched(
            self.ask,
            stage,
            name,
            worker=self.worker,
            node=ray.get_runtime_context().get_node_id(),
            failed_before=failed_before,
            limit_s=self.chunk_timeout_s,
        )

    @property
    def worker(self) -> str:
        """This actor, whatever its process; of a task its machine."""
        context = ray.get_runtime_context()
        return context.get_actor_id() or context.get_node_id()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the ledger. Not by `ray.get`, which lends this worker's CPU to others while it waits."""
        return getattr(self.ledger, method).remote(*arguments).future().result()


@contextmanager
def _watch(chunk_timeout_s: float | None) -> Iterator[_Watch]:
    """A ledger on the driver's machine: when that is lost, so is the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Ledger)
    ledger = actor.remote(_node_is_lost, chunk_timeout_s)
    try:
        yield _Watch(ledger, chunk_timeout_s)
    finally:
        ray.kill(ledger)


def _node_is_lost(node: str) -> bool:
    return any(known["NodeID"] == node and not known["Alive"] for known in ray.nodes())


class _Read:
    def __init__(self, read: Callable[[Chunk, Attempt], pa.Table], watch: _Watch) -> None:
        self.read = read
        self.watch = watch
        self.__name__ = "Read"

    def __call__(self, block: pa.Table) -> pa.Table:
        (text,) = block.column("description").to_pylist()
        chunk = Chunk.from_json(text)
        with self.watch.attempt("read", chunk.name, bool(chunk.only)) as attempt:
            table = self.read(chunk, attempt)
        chunk_of(table)
        return table


class _Model:
    def __init__(self, description: BlockModelDescription, watch: _Watch) -> None:
        self.watch = watch
        with building(watch.ask, watch.worker, watch.chunk_timeout_s):
            self.model = description.build()

    def __call__(self, block: pa.Table) -> pa.Table:
        chunk = chunk_of(block)
        with self.watch.attempt("model", chunk.name, bool(chunk.only)) as attempt:
            result = self.model(block, attempt)
        assert chunk_of(result) == chunk, f"the model returned the rows of another chunk than {chunk.name}"
        return result


class _Publish:
    def __init__(self, publish: Callable[[pa.Table, Attempt], Mapping[str, Any]], watch: _Watch) -> None:
        self.publish = publish
        self.watch = watch
        self.__name__ = "Publish"

    def __call__(self, block: pa.Table) -> pa.Table:
        chunk = chunk_of(block)
        with self.watch.attempt("publish", chunk.name, bool(chunk.only)) as attempt:
            return _receipt_block(self.publish(block, attempt))


class _Task:
    def __init__(self, tasks: tuple[Any, ...], work: Callable[[Any], Mapping[str, Any]], watch: _Watch) -> None:
        self.tasks = tasks
        self.work = work
        self.watch = watch
        self.__name__ = "Task"

    def __call__(self, block: pa.Table) -> pa.Table:
        (number,) = block.column("number").to_pylist()
        with self.watch.attempt("task", f"number {number}"):
            return _receipt_block(self.work(self.tasks[number]))


def _receipt_block(receipt: Mapping[str, Any]) -> pa.Table:
    return pa.table({"receipt": [json.dumps(receipt)]})


def _receipts(dataset: "ray.data.Dataset") -> Iterator[dict[str, Any]]:
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for text in _texts(batch):
                yield json.loads(text)
    except ray.exceptions.RayError as error:
        raise FlowError(_cause(error)) from error


def _cause(error: BaseException) -> str:
    """What went wrong in the worker: the innermost exception's own line, without Ray's wrapping and the frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.match(line) and not line.startswith("ray.")]
    return (raised or lines or [repr(error)])[-1]


def _texts(batch: pa.Table) -> Iterable[str]:
    return batch.column("receipt").to_pylist() if batch.num_rows else ()


@contextmanager
def _data_context(resources: Resources, on_failure: OnFailure) -> Iterator[None]:
    """Ray Data's settings for whole chunks and a quiet terminal; the caller's are restored."""
    context = DataContext.get_current()
    ours: dict[str, Any] = {
        "target_max_block_size": None,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": resources.failed_chunks_allowed,
    }
    patience_s = context.execution_no_progress_timeout_s
    if resources.chunk_timeout_s is not None and patience_s > 0:
        ours["execution_no_progress_timeout_s"] = max(patience_s, PATIENCE * resources.chunk_timeout_s)
    before = {name: getattr(context, name) for name in ours}
    logger = logging.getLogger("ray.data")
    consoles = [handler for handler in logger.handlers if handler.__class__.__name__ == "PlainRayHandler"]
    levels = [handler.level for handler in consoles]
    listener = _FailureListener(on_failure)
    try:
        for name, value in ours.items():
            setattr(context, name, value)
        for handler in consoles:
            handler.setLevel(logging.CRITICAL + 1)
        logger.addHandler(listener)
        yield
    finally:
        logger.removeHandler(listener)
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


class _FailureListener(logging.Handler):
    """Ray Data tells of a failed block it goes on without only in its log."""

    def __init__(self, on_failure: OnFailure) -> None:
        super().__init__(logging.ERROR)
        self.on_failure = on_failure

    def emit(self, record: logging.LogRecord) -> None:
        if "Ignoring this exception" in record.getMessage() and record.exc_info and record.exc_info[1]:
            self.on_failure(_cause(record.exc_info[1]))
