"""The last stage of every flow: rows and errors of one chunk become files, then the mark says it is finished."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines import layout, schema, storage
from pipelines.blocks import chunk_of
from pipelines.errors import SampleError
from pipelines.row_formats import PARQUET, RowFormat
from pipelines.samples import Chunk

Rows = Sequence[Mapping[str, Any]]
MakeRow = Callable[[Mapping[str, Any], Chunk], Mapping[str, Any]]


def publish_block(
    output: str, block: pa.Table, rows_schema: pa.Schema, make_row: MakeRow, row_format: RowFormat = PARQUET
) -> dict[str, Any]:
    """Publish a block and return its receipt: chunk, ok, bad, reasons.

    `make_row` turns one good row of the block into one of the output and may raise SampleError. Order: errors, data,
    mark; a kill in between leaves no mark, the chunk is done again and both files are replaced.
    """
    chunk = chunk_of(block)
    errors: list[dict[str, Any]] = []
    rows = list(_good_rows(block, chunk, make_row, errors))
    errors.sort(key=lambda error: error["position"])
    reasons = Counter(f"{error['stage']}: {error['reason']}" for error in errors)
    receipt = {"chunk": chunk.name, "ok": len(rows), "bad": len(errors), "reasons": dict(reasons)}
    files = _ChunkFiles(output=output, chunk=chunk, rows_schema=rows_schema, row_format=row_format)
    if chunk.only:
        files.merge(rows, errors)
    else:
        files.write(rows, errors, order=("errors", "data"))
    return receipt


def failed_positions(output: str, name: str) -> list[int]:
    """Positions of the samples of a finished chunk that are in errors/."""
    return [row["position"] for row in _stored(layout.errors_uri(output, name), PARQUET)]


@dataclass(frozen=True, kw_only=True)
class _ChunkFiles:
    """The files of one chunk: its rows in one format, its errors in Parquet, its mark."""

    output: str
    chunk: Chunk
    rows_schema: pa.Schema
    row_format: RowFormat

    def write(self, rows: Rows, errors: Rows, order: tuple[str, str]) -> None:
        """Publish both files in this order, then the mark."""
        contents = {
            "errors": (self._errors_uri, errors, schema.ERRORS, PARQUET),
            "data": (self._data_uri, rows, self.rows_schema, self.row_format),
        }
        for uri, content, file_schema, file_format in (contents[name] for name in order):
            if content:
                storage.publish(uri, file_format.encode(content, file_schema))
            else:
                storage.remove(uri)  # of an earlier attempt that went otherwise
        chunk = self.chunk
        mark = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
        uri = layout.mark_uri(self.output, chunk.name, len(rows), len(errors))
        storage.publish(uri, json.dumps(mark).encode())

    def merge(self, rows: Rows, errors: Rows) -> None:
        """Merge samples done again into what is there: data first, so a kill in between loses nothing."""
        data_before = _stored(self._data_uri, self.row_format)
        errors_before = _stored(self._errors_uri, PARQUET)
        again = set(self.chunk.only)

        def merged(old: Rows, new: Rows) -> Rows:
            kept = [row for row in old if row["position"] not in again]
            return sorted([*kept, *new], key=lambda row: row["position"])

        all_rows, all_errors = merged(data_before, rows), merged(errors_before, errors)
        self.write(all_rows, all_errors, order=("data", "errors"))
        if len(errors_before) != len(all_errors):
            storage.remove(layout.mark_uri(self.output, self.chunk.name, len(data_before), len(errors_before)))

    @property
    def _data_uri(self) -> str:
        return layout.data_uri(self.output, self.chunk.name, self.row_format.extension)

    @property
    def _errors_uri(self) -> str:
        return layout.errors_uri(self.output, self.chunk.name)


def _stored(uri: str, row_format: RowFormat) -> Rows:
    return list(row_format.read(uri)) if storage.exists(uri) else []


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
