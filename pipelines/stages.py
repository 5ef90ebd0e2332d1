"""The three stages of every chunked job, and what a job adds to them: its task.

A task says how a row is read (in a CPU worker), what the model does with a micro-batch of rows (in its actor), and how
a row is written (in a CPU worker). Chunks, errors, seeds, micro-batches and publication are here, once for all tasks.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from pipelines import blocks, schema
from pipelines.attempts import Attempt
from pipelines.damage import is_damage, reason_of
from pipelines.errors import PassingError, SampleError
from pipelines.fields import printable
from pipelines.microbatches import MicroBatches
from pipelines.publish import publish_block
from pipelines.row_faults import RowFaults
from pipelines.row_formats import PARQUET, RowFormat
from pipelines.samples import Chunk, Sample
from pipelines.sources import Source
from pipelines.storage_errors import StorageError
from pipelines.store import FILES, Store

Row = Mapping[str, Any]
UNWATCHED = Attempt()
"""Of a stage that is called without Ray."""
TOKENS_CUT = "prompt_tokens_cut"
"""Column of tasks with prompts: tokens of the prompt that the text encoder did not get because it takes no more."""
COMMON = pa.schema(
    [("caption", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("caption_note", pa.string())]
)
"""Read with every row, seen by the model, written with every row."""


class Task(Protocol):
    """What one kind of job does with a row. Light and picklable; every method is a function of its arguments."""

    @property
    def seeds_by_shard(self) -> bool:
        """Whether a row's seed depends on its shard besides its key: so for images made from noise, where two shards
        with a key in common would give one image twice."""
        ...

    @property
    def inputs(self) -> pa.Schema:
        """Columns read for the model: dropped when it is done."""
        ...

    @property
    def kept(self) -> pa.Schema:
        """Columns read for the writing: the model does not see them."""
        ...

    @property
    def results(self) -> pa.Schema:
        """Columns that the model adds."""
        ...

    @property
    def columns(self) -> pa.Schema:
        """Columns of a published row that only this task has."""
        ...

    @property
    def notes(self) -> Mapping[str, str]:
        """What a reader of the files must know, for the schema's metadata."""
        ...

    def read(self, sample: Sample) -> Row:
        """The values of COMMON, `inputs` and `kept`. Raises SampleError."""
        ...

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        """(width, height) at which the model works on a row of COMMON and `inputs`; equal sizes share a batch."""
        ...

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        """The values of `results` of rows of one working size, or what is wrong with a row."""
        ...

    def write(self, row: Row) -> Row:
        """The values of `columns`, of a row of COMMON, `kept` and `results`; may name `width` and `height` anew."""
        ...


class ModelDescription(Protocol):
    """The light stand-in for a model that travels to the actor."""

    def build(self) -> Any:
        """Load the model; called once in every actor."""
        ...


def row_seed(run_seed: int, key: str, shard: str = "") -> int:
    """The seed of a row, 63 bits: a function of its arguments, the same on every machine.

    shard: URI of the shard, for tasks whose rows must differ where two shards have a key in common.
    """
    name = f"{shard}\n{key}" if shard else key
    digest = hashlib.sha256(f"{run_seed}\n{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_of(task: Task, run_seed: int, key: str, chunk: Chunk) -> int:
    """The seed of a row of a chunk."""
    return row_seed(run_seed, key, chunk.shard_uri if task.seeds_by_shard else "")


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """First stage: the samples of a chunk, as rows small enough to travel."""

    task: Task
    source: Source
    published: Callable[[Chunk], bool] | None = None
    """Whether another run has published a chunk since it was planned: then it is passed on without its samples."""
    gives_up: bool = False
    """Whether samples that cannot be fetched for now are taken for failed ones, even all of a chunk (`--give-up`)."""

    def __call__(self, chunk: Chunk, attempt: Attempt = UNWATCHED) -> pa.Table:
        if self.published is not None and not chunk.only and self.published(chunk):
            return blocks.published_elsewhere(chunk, pa.schema([*COMMON, *self.task.kept, *self.task.inputs]))
        rows: list[dict[str, Any]] = []
        waiting: list[PassingError] = []
        for sample in self.source.read(chunk):
            rows.append(self._row(sample, attempt))
            if isinstance(sample.problem, PassingError):
                waiting.append(sample.problem)
        is_whole = len(waiting) == len(rows) and not chunk.only
        if is_whole and not self.gives_up and any(problem.is_shared for problem in waiting):
            raise StorageError(
                f"nothing of this chunk: {waiting[0].reason}; --give-up takes such samples for failed", "unreachable"
            )
        return blocks.new_block(chunk, rows, pa.schema([*COMMON, *self.task.kept, *self.task.inputs]))

    def _row(self, sample: Sample, attempt: Attempt) -> dict[str, Any]:
        row: dict[str, Any] = {"position": sample.position, "key": printable(sample.key)}
        try:
            if sample.problem is not None:
                raise sample.problem
            with attempt.on(sample.position):
                with _blaming("read"):
                    read = self.task.read(sample)
                return {**row, "caption_note": sample.caption_note or None, **read}
        except SampleError as error:
            return {**row, "error_stage": error.stage, "error_reason": error.reason}


@dataclass(frozen=True, kw_only=True)
class ComputeRows:
    """Second stage, as its description: the actor calls `build`."""

    task: Task
    model: ModelDescription
    run_seed: int
    batch_size: int

    def build(self) -> "BlockModel":
        """Load the model."""
        return BlockModel(self.task, self.model.build(), self.run_seed, self.batch_size)


class BlockModel:
    """Second stage, in the actor: adds the results of every good row, in micro-batches of one working size."""

    def __init__(self, task: Task, model: Any, run_seed: int, batch_size: int) -> None:
        self.task = task
        self.model = model
        self.run_seed = run_seed
        self.batches = MicroBatches(batch_size)
        self.proof: Callable[[], Any] | None = None
        """Computes a row that came through; see `RowFaults`."""

    def __call__(self, block: pa.Table, attempt: Attempt = UNWATCHED) -> pa.Table:
        stages = block.column("error_stage").to_pylist()
        reasons = block.column("error_reason").to_pylist()
        good = [at for at, stage in enumerate(stages) if stage is None]
        names = ["key", *COMMON.names, *self.task.inputs.names]
        chosen = block.select(names)
        if len(good) < block.num_rows:  # otherwise it would copy every pixel for nothing
            chosen = chosen.take(pa.array(good, pa.int64()))
        rows = dict(zip(good, chosen.to_pylist(), strict=True))
        results: list[Row] = [{}] * block.num_rows
        chunk = blocks.chunk_of(block)
        seeds = {at: seed_of(self.task, self.run_seed, row["key"], chunk) for at, row in rows.items()}
        compute = partial(self._compute, rows, seeds)
        faults = RowFaults(compute, partial(self._proof_of, rows, seeds), self.proof)
        positions = block.column("position").to_pylist()
        self.batches.start_counting()
        for at, result in self._run(rows, {positions[at]: at for at in good}, faults, attempt):
            if isinstance(result, SampleError):
                stages[at], reasons[at] = result.stage, result.reason
            else:
                results[at] = result
        faults.settle(failed_before=bool(chunk.only))
        self.proof = faults.proof
        columns = self._columns(results, stages, reasons)
        return blocks.set_columns(block, columns, drop=self.task.inputs.names)

    def _columns(
        self, results: list[Row], stages: list[str | None], reasons: list[str | None]
    ) -> dict[str, pa.ChunkedArray]:
        """The columns that the model adds, and those of errors; a result that has no place in them is an error."""
        try:
            added = pa.Table.from_pylist(results, schema=self.task.results)
        except blocks.NOT_STORABLE:
            kept = list(results)
            for at, reason in blocks.unstorable(
                results, lambda one: pa.Table.from_pylist(one, schema=self.task.results)
            ).items():
                kept[at], stages[at], reasons[at] = {}, "model", reason
            added = pa.Table.from_pylist(kept, schema=self.task.results)
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
        """Every row with its result: in batches, or alone where a process has died on this chunk."""
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

    def _proof_of(self, rows: Mapping[int, Row], seeds: Mapping[int, int], at: int) -> Callable[[], Any]:
        """Keeps one row in memory, and not its chunk."""
        return partial(self._compute, {at: rows[at]}, {at: seeds[at]}, [at])


@dataclass(frozen=True, kw_only=True)
class PublishRows:
    """Third stage: encode, write one file, publish it, leave the mark."""

    output: str
    task: Task
    provenance: Mapping[str, str | int | float]
    """What made the rows; `seed` is the run's, and the row's own in the row."""
    row_format: RowFormat = PARQUET
    store: Store = FILES
    omit: frozenset[str] = frozenset()
    """Columns that the output's files do not have since an earlier version began it: one output has one schema."""

    def __call__(self, block: pa.Table, attempt: Attempt = UNWATCHED) -> dict[str, Any]:
        def make_row(row: Row, chunk: Chunk) -> Row:
            with attempt.on(row["position"]), _blaming("publish"):
                return self._row(row, chunk)

        receipt = publish_block(self.output, block, self.rows_schema(), make_row, self.row_format, self.store)
        return {**receipt, "cut": _rows_cut(block)} if TOKENS_CUT in block.column_names else receipt

    def rows_schema(self) -> pa.Schema:
        """The schema of the published rows."""
        fields = [
            pa.field("key", pa.string(), nullable=False),
            *self.task.columns,
            *COMMON,
            pa.field("shard", pa.string()),
            pa.field("position", pa.int64()),
            *(pa.field(name, _arrow_type(name, value)) for name, value in self.provenance.items()),
        ]
        return schema.with_features(
            pa.schema([field for field in fields if pa.field(field).name not in self.omit]), self.task.notes
        )

    def _row(self, row: Row, chunk: Chunk) -> Row:
        return {
            "key": row["key"],
            **{name: row[name] for name in COMMON.names},
            **self.task.write(row),
            "shard": printable(chunk.shard_uri),
            "position": row["position"],
            **self.provenance,
            "seed": seed_of(self.task, int(self.provenance["seed"]), row["key"], chunk),
        }


@contextmanager
def _blaming(stage: str) -> Iterator[None]:
    """Inside, whatever a sample's values raise is a SampleError; a storage that fails is nobody's fault."""
    try:
        yield
    except SampleError:
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        raise SampleError(stage, f"the sample cannot be used: {type(error).__name__}: {reason_of(error)}") from error


def _arrow_type(name: str, value: object) -> pa.DataType:
    if name == "seed":
        return pa.int64()
    return {str: pa.string(), bool: pa.bool_(), int: pa.int32(), float: pa.float32()}[type(value)]


def _rows_cut(block: pa.Table) -> int:
    """Rows whose prompt was longer than the text encoder takes."""
    return sum(count > 0 for count in block.column(TOKENS_CUT).to_pylist() if count is not None)
