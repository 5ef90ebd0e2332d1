"""The last stage: the rows and errors of one chunk become files, see `pipelines.dataset.chunk_files`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.dataset import schema
from pipelines.dataset.chunk_files import Rows, _ChunkFiles, _error, _waits_on
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import chunk_of, is_published_elsewhere
from pipelines.errors import SampleError
from pipelines.samples import Chunk
from pipelines.stages.compute import _blaming
from pipelines.stages.task import COMMON, TOKENS_CUT, UNWATCHED, Row, Task, _rows_cut, seed_of
from pipelines.storage.store import FILES, Store
from pipelines.texts import printable

MakeRow = Callable[[Mapping[str, Any], Chunk], Mapping[str, Any]]


def publish_block(
    output: str,
    block: pa.Table,
    rows_schema: pa.Schema,
    make_row: MakeRow,
    row_format: RowFormat = PARQUET,
    store: Store = FILES,
) -> dict[str, Any]:
    """Publish a block and return its receipt: chunk, ok, bad, reasons; `elsewhere` where another run has published it.

    `make_row` turns one good row of the block into one of the output and may raise SampleError.

    Raises:
        OSError: the storage failed, or what a retry builds on has gone; the chunk is done again.
    """
    chunk = chunk_of(block)
    if is_published_elsewhere(block):
        return {"chunk": chunk.name, "ok": 0, "bad": 0, "reasons": {}, "elsewhere": block.num_rows}
    errors: list[dict[str, Any]] = []
    rows: Rows = list(_good_rows(block, chunk, make_row, errors))
    files = _ChunkFiles(output=output, rows_schema=rows_schema, row_format=row_format, store=store)
    if not _waits_on(chunk, errors):
        version = files.version(chunk, rows, errors)
        if version.content is None:  # a row has a value that the format cannot hold
            rows = files.without_unstorable(rows, chunk, errors)
            version = files.version(chunk, rows, errors)
        files.write(chunk, version)
    reasons = Counter(f"{error['stage']}: {error['reason']}" for error in errors)
    return {"chunk": chunk.name, "ok": len(rows), "bad": len(errors), "reasons": dict(reasons)}


def _good_rows(
    block: pa.Table, chunk: Chunk, make_row: MakeRow, errors: list[dict[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """The output rows one by one; failed ones are added to `errors`."""
    for batch in block.to_batches(max_chunksize=1):
        (row,) = batch.to_pylist()
        stage, reason = row["error_stage"], row["error_reason"]
        if stage is None:
            try:
                yield make_row(row, chunk)
                continue
            except SampleError as error:
                stage, reason = error.stage, error.reason
        errors.append(_error(row["key"], row["position"], chunk, stage, reason))


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


def _arrow_type(name: str, value: object) -> pa.DataType:
    if name == "seed":
        return pa.int64()
    return {str: pa.string(), bool: pa.bool_(), int: pa.int32(), float: pa.float32()}[type(value)]
