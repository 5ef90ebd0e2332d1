"""The model in its actor, and the rows of one chunk that it computes.

Tested in tests/pipelines/stages/test_compute.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipelines.errors import SampleError
from pipelines.samples import Chunk
from pipelines.stages.batch_sizes import BatchSizes
from pipelines.stages.device_queue import DeviceQueue, DeviceUse
from pipelines.stages.microbatches import Size
from pipelines.stages.rows import BlockRows
from pipelines.stages.task import ModelTask, Row, seed_of


@dataclass(frozen=True, kw_only=True)
class ActorModel:
    """A loaded model in its actor, with its task. Several threads may call it."""

    task: ModelTask
    model: Any
    queue: DeviceQueue
    sizes: BatchSizes
    run_seed: int
    is_shared: bool
    """Whether the model uses the device through the queue. If not, its whole calls take turns."""

    @classmethod
    def of(cls, task: ModelTask, model: Any, sizes: BatchSizes, run_seed: int) -> "ActorModel":
        """Let the model use the device through a queue, if it offers that as `unicon.UniCon.in_turns` does."""
        queue, is_shared = DeviceQueue(), hasattr(model, "in_turns")
        shared = model.in_turns(queue.run) if is_shared else model
        return cls(task=task, model=shared, queue=queue, sizes=sizes, run_seed=run_seed, is_shared=is_shared)

    def size(self, row: Row) -> Size:
        """Return the working size of a row."""
        return self.task.working_size(self.model, row)

    def compute(self, rows: Sequence[Row], chunk: Chunk, use: DeviceUse) -> Sequence[Row | SampleError]:
        """Return the results of rows of one working size, and count the time on the device."""
        seeds = [seed_of(self.task, self.run_seed, row["key"], chunk) for row in rows]
        call = partial(self.task.compute, self.model, rows, seeds)
        with self.queue.used_by(use):
            return call() if self.is_shared else self.queue.run_here(call)


@dataclass(kw_only=True)
class ChunkWork:
    """The rows of a chunk, and what the model did for them. Several threads may call it."""

    actor: ActorModel
    chunk: Chunk
    rows: BlockRows
    order: int
    """Its place among the chunks of the actor."""
    uses: list[DeviceUse] = field(default_factory=list)
    """The use of the device by micro-batch, including those that did not fit into memory."""

    @property
    def device_s(self) -> float:
        """Seconds in which the device worked for the chunk."""
        return sum(use.device_s for use in self.uses)

    @property
    def largest_batch(self) -> int:
        """The largest batch that succeeded."""
        return max((use.rows for use in self.uses), default=0)

    def by_size(self, rows: Sequence[int]) -> dict[Size, list[int]]:
        """Return working size -> rows, in their order."""
        by_size: dict[Size, list[int]] = {}
        for at in rows:
            by_size.setdefault(self.actor.size(self.rows[at]), []).append(at)
        return by_size

    def compute(self, batch: list[int]) -> Sequence[Row | SampleError]:
        """Return the results of rows of one working size."""
        rows, use = [self.rows[at] for at in batch], DeviceUse(self.order)
        self.uses.append(use)
        results = self.actor.compute(rows, self.chunk, use)
        use.rows = len(batch)
        width, height = self.actor.size(rows[0])
        self.actor.sizes.took(width * height, len(batch), use.device_s)
        self.actor.queue.time.computed((width, height), len(batch), use.device_s)
        return results

    def probe_of(self, at: int) -> Callable[[], Any]:
        """Return a call that computes a row again; it keeps one row in memory, not its chunk."""
        return partial(self.actor.compute, [self.rows.copied(at)], self.chunk, DeviceUse(self.order))
