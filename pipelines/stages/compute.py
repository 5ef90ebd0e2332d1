"""The second stage: computes the results of the rows of a chunk with the model of a job.

A task (`task.py`) says how a row is read, what the model does with a micro-batch of rows, and how a row is written.
Chunks, errors, seeds and micro-batches are handled here, once for all tasks.

Tested in tests/pipelines/tasks/ and tests/pipelines/stages/test_publish.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from pipelines.engine import blocks
from pipelines.engine.attempts import Attempt
from pipelines.errors import SampleError
from pipelines.samples import Chunk
from pipelines.stages.microbatches import MicroBatches
from pipelines.stages.row_faults import RowFaults
from pipelines.stages.task import COMMON, UNSUPERVISED, ModelDescription, Row, Task, seed_of


@dataclass(frozen=True, kw_only=True)
class ComputeRows:
    """Description of the second stage; the actor calls `build`."""

    task: Task
    model: ModelDescription
    run_seed: int
    batch_size: int

    def build(self) -> "BlockModel":
        """Load the model."""
        return BlockModel(self.task, self.model.build(), self.run_seed, self.batch_size)


class BlockModel:
    """Second stage, in the actor: adds the results of every row without an error, in micro-batches of one size."""

    def __init__(self, task: Task, model: Any, run_seed: int, batch_size: int) -> None:
        self.task = task
        self.model = model
        self.run_seed = run_seed
        self.batches = MicroBatches(batch_size)
        self.probe: Callable[[], Any] | None = None
        """Computes a row that succeeded before; see `RowFaults`."""

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt = UNSUPERVISED) -> pa.Table:
        """Return the block with the columns of results instead of those of inputs."""
        stages = block.column("error_stage").to_pylist()
        reasons = block.column("error_reason").to_pylist()
        good = [at for at, stage in enumerate(stages) if stage is None]
        names = ["key", *COMMON.names, *self.task.inputs.names]
        chosen = block.select(names)
        if len(good) < block.num_rows:  # `take` copies every pixel
            chosen = chosen.take(pa.array(good, pa.int64()))
        rows = dict(zip(good, chosen.to_pylist(), strict=True))
        results: list[Row] = [{}] * block.num_rows
        seeds = {at: seed_of(self.task, self.run_seed, row["key"], chunk) for at, row in rows.items()}
        compute = partial(self._compute, rows, seeds)
        faults = RowFaults(compute, partial(self._probe_of, rows, seeds), self.probe)
        positions = block.column("position").to_pylist()
        self.batches.start_counting()
        for at, result in self._run(rows, {positions[at]: at for at in good}, faults, attempt):
            if isinstance(result, SampleError):
                stages[at], reasons[at] = result.stage, result.reason
            else:
                results[at] = result
        faults.finish(failed_before=bool(chunk.only))
        self.probe = faults.probe
        columns = self._columns(results, stages, reasons)
        return blocks.set_columns(block, columns, drop=self.task.inputs.names)

    def _columns(
        self, results: list[Row], stages: list[str | None], reasons: list[str | None]
    ) -> dict[str, pa.ChunkedArray]:
        """The columns that the model adds, and those of errors; a result that cannot be stored is an error."""
        try:
            added = pa.Table.from_pylist(results, schema=self.task.results)
        except blocks.NOT_STORABLE:
            storable = list(results)
            for at, reason in blocks.unstorable(
                results, lambda one: pa.Table.from_pylist(one, schema=self.task.results)
            ).items():
                storable[at], stages[at], reasons[at] = {}, "model", reason
            added = pa.Table.from_pylist(storable, schema=self.task.results)
        errors = {"error_stage": pa.array(stages, pa.string()), "error_reason": pa.array(reasons, pa.string())}
        return {**errors, **{name: added.column(name) for name in added.column_names}}

    def _by_size(self, rows: Mapping[int, Row]) -> dict[tuple[int, int], list[int]]:
        by_size: dict[tuple[int, int], list[int]] = {}
        for at, row in rows.items():
            by_size.setdefault(self.task.working_size(self.model, row), []).append(at)
        return by_size

    def _run(
        self, rows: Mapping[int, Row], by_position: Mapping[int, int], faults: RowFaults, attempt: Attempt
    ) -> Iterator[tuple[int, Row | SampleError]]:
        """Yield every row with its result; rows are computed one at a time if a process has died on this chunk."""
        if not attempt.one_by_one:
            for size, group in self._by_size(rows).items():
                yield from self.batches.run(group, size, faults)
            return
        for position in attempt.in_order(by_position):
            at = by_position[position]
            try:
                with attempt.on(position):
                    results = self.batches.run([at], self.task.working_size(self.model, rows[at]), faults)
                    faults.check()
            except SampleError as error:
                results = [(at, error)]
            yield from results

    def _compute(
        self, rows: Mapping[int, Row], seeds: Mapping[int, int], batch: list[int]
    ) -> Sequence[Row | SampleError]:
        return self.task.compute(self.model, [rows[at] for at in batch], [seeds[at] for at in batch])

    def _probe_of(self, rows: Mapping[int, Row], seeds: Mapping[int, int], at: int) -> Callable[[], Any]:
        """Return a call that computes a row again; it holds one row in memory, not its chunk."""
        return partial(self._compute, {at: rows[at]}, {at: seeds[at]}, [at])
