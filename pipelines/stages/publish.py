"""The last stage: writes the rows and errors of one chunk to files, see `pipelines.dataset.chunk_files`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.dataset import schema
from pipelines.dataset.chunk_files import ChunkFiles, Rows, error_row, still_waits
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.attempts import Attempt
from pipelines.engine.blocks import is_published_elsewhere
from pipelines.errors import FILTER, SampleError, printable
from pipelines.samples import Chunk
from pipelines.stages.row_faults import blaming_sample
from pipelines.stages.task import COMMON, TOKENS_CUT, UNSUPERVISED, Row, RowTask, seed_of
from pipelines.storage.store import FILES, Store

MakeRow = Callable[[Mapping[str, Any], Chunk], Mapping[str, Any]]


def publish_block(
    output: str,
    chunk: Chunk,
    block: pa.Table,
    rows_schema: pa.Schema,
    make_row: MakeRow,
    row_format: RowFormat = PARQUET,
    store: Store = FILES,
) -> dict[str, Any]:
    """Publish a block and return its receipt: chunk, ok, bad, reasons; `elsewhere` if another run has published it.

    `filtered` is the number of the bad ones that a filter has removed, if there are any.

    Args:
        output: The output root.
        chunk: The chunk of the block.
        block: The rows after the model.
        rows_schema: The schema of the output.
        make_row: Turns a row of the block that has no error into one of the output; may raise SampleError.
        row_format: The file format of the output.
        store: The storage of the output.

    Raises:
        OSError: The storage failed, or the files that a retry builds on are gone; the chunk is processed again.
    """
    if is_published_elsewhere(block):
        return {"chunk": chunk.name, "ok": 0, "bad": 0, "reasons": {}, "elsewhere": block.num_rows}
    errors: list[dict[str, Any]] = []
    rows: Rows = list(_good_rows(block, chunk, make_row, errors))
    files = ChunkFiles(output=output, rows_schema=rows_schema, row_format=row_format, store=store)
    if not still_waits(chunk, errors):
        version = files.version(chunk, rows, errors)
        if version.content is None:  # a row has a value that the format cannot represent
            rows = files.without_unstorable(rows, chunk, errors)
            version = files.version(chunk, rows, errors)
        files.write(chunk, version)
    reasons = Counter(f"{error['stage']}: {error['reason']}" for error in errors)
    receipt = {"chunk": chunk.name, "ok": len(rows), "bad": len(errors), "reasons": dict(reasons)}
    filtered = sum(error["stage"] == FILTER for error in errors)
    return {**receipt, "filtered": filtered} if filtered else receipt


def _good_rows(
    block: pa.Table, chunk: Chunk, make_row: MakeRow, errors: list[dict[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Yield the output rows one by one; failed ones are added to `errors`."""
    for batch in block.to_batches(max_chunksize=1):
        (row,) = batch.to_pylist()
        stage, reason = row["error_stage"], row["error_reason"]
        if stage is None:
            try:
                yield make_row(row, chunk)
                continue
            except SampleError as error:
                stage, reason = error.stage, error.reason
        errors.append(error_row(row["key"], row["position"], chunk, stage, reason))


@dataclass(frozen=True, kw_only=True)
class PublishRows:
    """Last stage: encodes the rows of a chunk into one file, publishes it, and writes the mark."""

    output: str
    task: RowTask
    provenance: Mapping[str, str | int | float]
    """How the rows were made, by column. `seed` is that of the run; published rows have their own."""
    row_format: RowFormat = PARQUET
    store: Store = FILES
    omit: frozenset[str] = frozenset()
    """Columns to leave out because an earlier version began this output without them: an output has one schema."""

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt = UNSUPERVISED) -> dict[str, Any]:
        """Publish the block of a chunk and return its receipt."""

        def make_row(row: Row, chunk: Chunk) -> Row:
            with attempt.on(row["position"]), blaming_sample("publish"):
                return self._row(row, chunk)

        receipt = publish_block(self.output, chunk, block, self.rows_schema(), make_row, self.row_format, self.store)
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
            pa.schema([field for field in fields if pa.field(field).name not in self.omit]), self.task.schema_metadata
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


def _rows_cut(block: pa.Table) -> int:
    """The number of rows whose prompt exceeded the limit of the text encoder."""
    return sum(count > 0 for count in block.column(TOKENS_CUT).to_pylist() if count is not None)


def _arrow_type(name: str, value: object) -> pa.DataType:
    if name == "seed":
        return pa.int64()
    return {str: pa.string(), bool: pa.bool_(), int: pa.int32(), float: pa.float32()}[type(value)]
