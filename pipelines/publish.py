"""The last stage of every flow: rows and errors of one chunk become files, then the mark says it is finished.

The files' names say which positions failed (`pipelines.layout`), so whatever is published beside them, by another
attempt or another run, never mixes with them. Order: errors, data, mark; a stop in between leaves files that do not
count, and the chunk is done again.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines import layout, schema
from pipelines.blocks import chunk_of, is_published_elsewhere
from pipelines.errors import SampleError
from pipelines.row_formats import PARQUET, RowFormat
from pipelines.samples import Chunk
from pipelines.store import FILES, Store

Rows = Sequence[Mapping[str, Any]]
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
    rows = list(_good_rows(block, chunk, make_row, errors))
    reasons = Counter(f"{error['stage']}: {error['reason']}" for error in errors)
    receipt = {"chunk": chunk.name, "ok": len(rows), "bad": len(errors), "reasons": dict(reasons)}
    files = _ChunkFiles(output=output, rows_schema=rows_schema, row_format=row_format, store=store)
    if chunk.only:
        files.write(chunk, *files.merged(chunk, rows, errors))
    else:
        files.write(chunk, rows, _by_position(errors))
    return receipt


def failed_positions(version: layout.Version, store: Store = FILES) -> list[int]:
    """Positions of the samples of a finished version that are in errors/; none if another run has removed it.

    Raises:
        OSError: the file is damaged.
    """
    try:
        return [row["position"] for row in PARQUET.read(version.errors_uri, ["position"], store)]
    except FileNotFoundError:
        return []
    except pa.ArrowException as error:
        raise OSError(
            f"{version.errors_uri} is damaged ({error}). Delete it: the same command then does its chunk again."
        ) from error


@dataclass(frozen=True, kw_only=True)
class _ChunkFiles:
    """The files of chunks: rows in one format, errors in Parquet, marks."""

    output: str
    rows_schema: pa.Schema
    row_format: RowFormat
    store: Store

    def write(self, chunk: Chunk, rows: Rows, errors: Rows) -> None:
        """Publish a version of the whole chunk."""
        stem = layout.version_stem(chunk.name, len(rows), (error["position"] for error in errors))
        if errors:
            content = PARQUET.encode(errors, schema.ERRORS)
            self.store.publish(layout.errors_uri(self.output, stem), content)
        if rows:
            content = self.row_format.encode(rows, self.rows_schema)
            self.store.publish(layout.data_uri(self.output, stem, self.row_format.extension), content)
        mark = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
        self.store.publish(layout.mark_uri(self.output, stem), json.dumps(mark).encode())

    def merged(self, chunk: Chunk, rows: Rows, errors: Rows) -> tuple[Rows, Rows]:
        """Samples done again together with the published ones of the same chunk."""
        before = self._published(chunk.base_data, self.row_format), self._published(chunk.base_errors, PARQUET)
        again = set(chunk.only)
        all_rows, all_errors = (
            _by_position([*(row for row in old if row["position"] not in again), *new])
            for old, new in zip(before, (rows, errors), strict=True)
        )
        positions = sorted(row["position"] for row in (*all_rows, *all_errors))
        if positions != list(range(chunk.start, chunk.stop)):
            raise OSError(
                f"chunk {chunk.name}: the published files account for other samples than their names say; "
                "the same command does the chunk again"
            )
        return all_rows, all_errors

    def _published(self, uri: str, row_format: RowFormat) -> Rows:
        """The rows of a file that a retry builds on. Raises FileNotFoundError where another run has replaced it."""
        return list(row_format.read(uri, store=self.store)) if uri else []


def _by_position(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: row["position"])


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
        errors.append(
            {
                "key": row["key"],
                "shard": chunk.shard_uri,
                "position": row["position"],
                "stage": stage,
                "reason": reason,
            }
        )
