"""The last stage of every flow: rows and errors of one chunk become files, then the mark says it is finished."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import layout, schema, storage
from pipelines.blocks import chunk_of
from pipelines.errors import SampleError
from pipelines.samples import Chunk

Rows = Sequence[Mapping[str, Any]]
MakeRow = Callable[[Mapping[str, Any], Chunk], Mapping[str, Any]]


def publish_block(output: str, block: pa.Table, rows_schema: pa.Schema, make_row: MakeRow) -> dict[str, Any]:
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
    if chunk.only:
        _publish_retried(output, chunk, rows, errors, rows_schema)
    else:
        _publish_files(output, chunk, rows, errors, rows_schema, order=("errors", "data"))
    return receipt


def failed_positions(output: str, name: str) -> list[int]:
    """Positions of the samples of a finished chunk that are in errors/."""
    return [row["position"] for row in _stored(layout.errors_uri(output, name))]


def _publish_files(
    output: str, chunk: Chunk, rows: Rows, errors: Rows, rows_schema: pa.Schema, order: tuple[str, str]
) -> None:
    files = {
        "errors": (layout.errors_uri(output, chunk.name), errors, schema.ERRORS),
        "data": (layout.data_uri(output, chunk.name), rows, rows_schema),
    }
    for uri, content, file_schema in (files[name] for name in order):
        if content:
            storage.publish(uri, schema.parquet_bytes(content, file_schema))
        else:
            storage.remove(uri)  # of an earlier attempt that went otherwise
    mark = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
    storage.publish(layout.mark_uri(output, chunk.name, len(rows), len(errors)), json.dumps(mark).encode())


def _publish_retried(output: str, chunk: Chunk, rows: Rows, errors: Rows, rows_schema: pa.Schema) -> None:
    """Merge samples done again into the chunk's files: data first, so a kill in between loses nothing."""
    data_before = _stored(layout.data_uri(output, chunk.name))
    errors_before = _stored(layout.errors_uri(output, chunk.name))
    again = set(chunk.only)

    def merged(old: Rows, new: Rows) -> Rows:
        kept = [row for row in old if row["position"] not in again]
        return sorted([*kept, *new], key=lambda row: row["position"])

    all_rows, all_errors = merged(data_before, rows), merged(errors_before, errors)
    _publish_files(output, chunk, all_rows, all_errors, rows_schema, order=("data", "errors"))
    if len(errors_before) != len(all_errors):
        storage.remove(layout.mark_uri(output, chunk.name, len(data_before), len(errors_before)))


def _stored(uri: str) -> Rows:
    if not storage.exists(uri):
        return []
    with storage.open_read(uri) as file:
        return pq.read_table(file).to_pylist()


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
