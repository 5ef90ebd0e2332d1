"""The last stage of every flow: rows and errors of one chunk become files, then the mark says it is finished."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipelines import layout, schema, storage
from pipelines.blocks import chunk_of
from pipelines.errors import SampleError
from pipelines.samples import Chunk

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
    for uri, content, file_schema in (
        (layout.errors_uri(output, chunk.name), errors, schema.ERRORS),
        (layout.data_uri(output, chunk.name), rows, rows_schema),
    ):
        if content:
            storage.publish(uri, schema.parquet_bytes(content, file_schema))
        else:
            storage.remove(uri)  # of an earlier attempt that went otherwise
    mark = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
    storage.publish(layout.mark_uri(output, chunk.name, len(rows), len(errors)), json.dumps(mark).encode())
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
        errors.append(
            {
                "key": row["key"],
                "shard": chunk.shard_uri,
                "position": row["position"],
                "stage": stage,
                "reason": reason,
            }
        )
