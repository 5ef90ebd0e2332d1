"""The stage of a model: computes its results for the rows of a chunk. A job has one such stage or several.

A task (`task.py`) says how a row is read, what the model does with a micro-batch of rows, and how a row is written.
Chunks, errors, seeds and micro-batches are handled here, once for all tasks.

The device does not wait for the CPU: while it works on one micro-batch, threads prepare the next one and finish the
last one, and a second chunk may be unpacked or packed.

Tested in tests/pipelines/tasks/ and tests/pipelines/stages/test_compute.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.engine import blocks
from pipelines.engine.attempts import Attempt
from pipelines.errors import SampleError
from pipelines.samples import Chunk
from pipelines.stages.ahead import computing_ahead
from pipelines.stages.batch_sizes import BatchSizes, found_sizes
from pipelines.stages.chunk_work import ActorModel, ChunkWork
from pipelines.stages.microbatches import BATCHES_AHEAD, MicroBatches
from pipelines.stages.row_faults import RowFaults
from pipelines.stages.rows import BlockRows
from pipelines.stages.task import COMMON, UNSUPERVISED, ModelDescription, ModelTask, Row


@dataclass(frozen=True, kw_only=True)
class ComputeRows:
    """Description of the stage of a model; the actor calls `build`."""

    task: ModelTask
    model: ModelDescription
    run_seed: int
    batch_size: int | None
    """Rows that the model processes at once; None: as many as pays on its device, see `batch_sizes.py`."""
    stage: str = blocks.MODEL
    """Name of the stage in the error rows of samples for which the model fails."""
    needed_later: frozenset[str] = frozenset()
    """Inputs that a later model needs too."""

    def build(self) -> "BlockModel":
        """Load the model."""
        model = self.model.build()
        sizes = found_sizes(model, self.task) if self.batch_size is None else BatchSizes(self.batch_size)
        return BlockModel(ActorModel.of(self.task, model, sizes, self.run_seed), self.stage, self.needed_later)


class BlockModel:
    """The stage in its actor: adds the results of every row without an error. Several threads may call it."""

    def __init__(
        self, actor: ActorModel, stage: str = blocks.MODEL, needed_later: frozenset[str] = frozenset()
    ) -> None:
        self.actor = actor
        self.stage = stage
        self.dropped = [name for name in actor.task.inputs.names if name not in needed_later]
        self.probe: Callable[[], Any] | None = None
        """Computes a row that succeeded before; see `RowFaults`."""

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt = UNSUPERVISED) -> pa.Table:
        """Return the block with the columns of results instead of those inputs that no later model needs."""
        return self.compute(chunk, block, attempt)[0]

    def compute(self, chunk: Chunk, block: pa.Table, attempt: Attempt = UNSUPERVISED) -> tuple[pa.Table, ChunkWork]:
        """Return the block as calling this object does, and what the model did."""
        task = self.actor.task
        stages = block.column("error_stage").to_pylist()
        reasons = block.column("error_reason").to_pylist()
        rows = BlockRows(block, ["key", *COMMON.names, *task.inputs.names])
        work = ChunkWork(actor=self.actor, chunk=chunk, rows=rows, order=attempt.order)
        results: list[Row] = [{}] * block.num_rows
        good = {position: at for at, position in enumerate(block.column("position").to_pylist()) if stages[at] is None}
        faults = RowFaults(work.compute, work.probe_of, self.probe)
        for at, result in self._run(work, good, faults, attempt):
            if isinstance(result, SampleError):
                stages[at], reasons[at] = self._stage_of(result), result.reason
            else:
                results[at] = result
        faults.finish(failed_before=bool(chunk.only))
        self.probe = faults.probe
        columns = _columns(task, results, stages, reasons, self.stage)
        return blocks.set_columns(block, columns, drop=self.dropped), work

    def _stage_of(self, error: SampleError) -> str:
        """The stage of an error row: this one, if the model has failed."""
        return self.stage if error.stage == blocks.MODEL else error.stage

    def _run(
        self, work: ChunkWork, good: dict[int, int], faults: RowFaults, attempt: Attempt
    ) -> Iterator[tuple[int, Row | SampleError]]:
        """Yield every row with its result; `good` maps positions to rows."""
        if attempt.one_by_one:
            return self._run_one_by_one(work, good, faults, attempt)
        groups = work.by_size([*good.values()])
        if not self.actor.is_shared:
            return MicroBatches(self.actor.sizes, faults).run(groups)
        return self._run_ahead(work, groups, faults)

    def _run_ahead(
        self, work: ChunkWork, groups: dict[tuple[int, int], list[int]], faults: RowFaults
    ) -> Iterator[tuple[int, Row | SampleError]]:
        """Prepare batches while another one is on the device."""
        with computing_ahead(work.compute, 1 + BATCHES_AHEAD) as ahead:
            faults.compute = ahead
            yield from MicroBatches(self.actor.sizes, faults, ahead.start).run(groups)

    def _run_one_by_one(
        self, work: ChunkWork, good: dict[int, int], faults: RowFaults, attempt: Attempt
    ) -> Iterator[tuple[int, Row | SampleError]]:
        """Compute rows one at a time, because a process has died on this chunk."""
        batches = MicroBatches(self.actor.sizes, faults)
        for position in attempt.in_order(good):
            at = good[position]
            try:
                with attempt.on(position):
                    results = list(batches.run(work.by_size([at])))
                    faults.check()
            except SampleError as error:
                results = [(at, error)]
            yield from results


def _columns(
    task: ModelTask, results: list[Row], stages: list[str | None], reasons: list[str | None], stage: str
) -> dict[str, pa.ChunkedArray]:
    """The columns that the model adds, and those of errors; a result that cannot be stored is an error."""
    try:
        added = pa.Table.from_pylist(results, schema=task.results)
    except blocks.NOT_STORABLE:
        storable = list(results)
        for at, reason in blocks.unstorable(
            results, lambda one: pa.Table.from_pylist(one, schema=task.results)
        ).items():
            storable[at], stages[at], reasons[at] = {}, stage, reason
        added = pa.Table.from_pylist(storable, schema=task.results)
    errors = {"error_stage": pa.array(stages, pa.string()), "error_reason": pa.array(reasons, pa.string())}
    return {**errors, **{name: added.column(name) for name in added.column_names}}
