# Ray declares the options of its stages too narrowly and does not declare its submodules.
# pyright: reportAttributeAccessIssue=false
"""The batches of a training as a stream of Ray Data: read windows, decode rows, one row a step and worker, in order.

    from_items(windows) -> read (one task a window, yields a row for every step and worker) -> decode -> split by worker

Ray Data keeps the order of the rows (`preserve_order`), and a split gives the next row to the worker with the fewest,
so that worker r of W gets rows r, r + W, r + 2 W and so on. Every row says its step and worker, and the training checks
them (`pipelines.training.source`).

Tested in tests/pipelines/engine/test_train.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.data import DataContext, DataIterator, ExecutionOptions, ExecutionResources, TaskPoolStrategy
from ray.train import DataConfig

STEPS = "steps"
"""Name of the stream among the datasets of a training."""
WINDOWS_AHEAD = 1
"""Windows that are read at a time beside one for each worker; they are in memory while their steps are trained."""
ROWS_AHEAD = 4
"""Batches that a worker fetches ahead of its device."""


class StepReader(Protocol):
    """Reads the batches of a training. It is sent to every task."""

    def read(self, task: Any, world_size: int) -> Iterator[pa.Table]:
        """Yield a table of one row for every step and worker, in order."""
        ...

    def decode(self, table: pa.Table) -> pa.Table:
        """Return what a worker needs of a table of `read`, as one row."""
        ...


class Steps(Protocol):
    """What remains of a training."""

    @property
    def reader(self) -> StepReader:
        """Reads the batches."""
        ...

    def tasks(self) -> Sequence[Any]:
        """Return what is to be read, from the step of the latest checkpoint to the last one, each for one task."""
        ...


@dataclass(frozen=True, kw_only=True)
class StreamCpus:
    """CPUs of the tasks of the stream, beside those of the workers."""

    workers: float
    """CPUs of all workers."""
    a_task: float
    """CPUs of a task that decodes."""


class StepStreams(DataConfig):
    """Gives every worker its stream. Ray Train asks for it whenever it starts workers, however many they are."""

    def __init__(self, steps: Steps, cpus: StreamCpus) -> None:
        super().__init__(datasets_to_split=[])
        self.steps, self.cpus = steps, cpus

    def configure(
        self, datasets: Any, world_size: int, worker_handles: Any, worker_node_ids: Any, **_: Any
    ) -> list[dict[str, DataIterator]]:
        """Return the stream of each worker; see `ray.train.DataConfig`."""
        dataset = step_dataset(self.steps, world_size, self.cpus)
        return [{STEPS: split} for split in dataset.streaming_split(world_size, equal=False)]


def step_dataset(steps: Steps, world_size: int, cpus: StreamCpus) -> "ray.data.Dataset":
    """Return the rows of all steps and workers, from the latest checkpoint on."""
    context = DataContext.get_current()
    context.target_max_block_size = 1  # a block for every row
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options = ExecutionOptions(
        preserve_order=True, exclude_resources=ExecutionResources(cpu=cpus.workers)
    )
    tasks = [{"task": task} for task in steps.tasks()]
    return (
        ray.data.from_items(tasks, override_num_blocks=max(1, len(tasks)))
        .map_batches(
            _Read(steps.reader, world_size),
            batch_size=1,
            batch_format="numpy",
            num_cpus=0,  # it waits for the storage, and holding a CPU while it waits for decoding would block decoding
            compute=TaskPoolStrategy(size=WINDOWS_AHEAD + world_size),
        )
        .map_batches(_Decode(steps.reader), batch_size=1, batch_format="pyarrow", num_cpus=cpus.a_task)
    )


def rows_of(stream: DataIterator) -> Iterator[pa.Table]:
    """Yield the rows of a worker's stream, fetched ahead."""
    yield from stream.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=ROWS_AHEAD)


class _Read:
    def __init__(self, reader: StepReader, world_size: int) -> None:
        self.reader, self.world_size = reader, world_size
        self.__name__ = "ReadWindow"

    def __call__(self, batch: Any) -> Iterator[pa.Table]:
        yield from self.reader.read(batch["task"][0], self.world_size)


class _Decode:
    def __init__(self, reader: StepReader) -> None:
        self.reader = reader
        self.__name__ = "DecodeRows"

    def __call__(self, table: pa.Table) -> pa.Table:
        return self.reader.decode(table)
