"""Parquet shards: the samples of one chunk, and what planning must know of a file.

Only the columns in use are read, a few rows at a time, however large a row group is. Reading a chunk starts at the
beginning of a row group, so if the row groups are much larger than a chunk, parts of them are read several times. A
`--chunk-size` near the size of the row groups is cheapest.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import SampleError, clipped
from pipelines.readers.captions import Caption, caption_from, chosen_caption
from pipelines.readers.fields import place_of
from pipelines.readers.inline_images import decoded_bytes
from pipelines.readers.parquet_columns import KEY_NAMES, ParquetColumns, choose_columns, stored_path
from pipelines.readers.parquet_files import (
    BadRow,
    OpenParquet,
    Row,
    matching_rows,
    missing_rows,
    open_parquet,
    read_row_range,
)
from pipelines.readers.parquet_values import key_texts, values_at
from pipelines.readers.predicates import Predicate, parse_predicates
from pipelines.readers.references import MAX_FILE_BYTES, read_ahead
from pipelines.readers.row_samples import assembled, named, read_named
from pipelines.readers.shard_index import INDEX_STRIDE, ShardIndex
from pipelines.samples import Chunk, Columns, EncodedImage, Sample, repeated_key
from pipelines.storage.store import FILES, Store

__all__ = ["KEY_NAMES", "ParquetColumns", "choose_columns", "count_rows", "earlier_keys", "index_parquet", "read_rows"]


def count_rows(uri: str, store: Store = FILES) -> tuple[int, pa.Schema]:
    """Return the number of rows and the schema from the footer. Raises what `is_damage` recognizes as damage."""
    with open_parquet(uri, store) as parquet:
        return parquet.rows, parquet.schema


def check_image_columns(uri: str, names: Sequence[str], store: Store = FILES) -> None:
    """Check in the footer that columns can hold images.

    Raises:
        MisfitError: a column is missing or of the wrong type.
        Exception: the file is damaged, in a way that `pipelines.storage.damage` recognizes.
    """
    with open_parquet(uri, store) as parquet:
        for name in names:
            _chosen(parquet, Columns(image=name), uri)


def index_parquet(uri: str, columns: Columns, store: Store = FILES) -> ShardIndex:
    """Count the samples and find repeated keys; with predicates, also the row of every INDEX_STRIDE-th sample.

    Reads the footer, the key column if there is one, and the columns of the predicates.

    Raises:
        SettingError: a predicate cannot be parsed.
        MisfitError: a column is missing, of the wrong type, or ambiguous.
        Exception: the file is damaged, in a way that `pipelines.storage.damage` recognizes.
    """
    with open_parquet(uri, store) as parquet:
        chosen, predicates = _chosen(parquet, columns, uri)
        rows = parquet.rows
        numbers = matching_rows(parquet, predicates) if predicates else None
        duplicates = () if chosen.key is None else _repeated(parquet, chosen.key, numbers)
    if numbers is None:
        return ShardIndex(samples=rows, seek_bytes=(), duplicates=duplicates)
    return ShardIndex(samples=len(numbers), seek_bytes=tuple(numbers[::INDEX_STRIDE].tolist()), duplicates=duplicates)


def read_parquet(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """Read the samples of a chunk in order and fetch images that are named rather than stored.

    Raises:
        OSError: the storage failed, or the file has become shorter since planning.
    """
    with open_parquet(chunk.shard_uri, store) as parquet:
        chosen, predicates = _chosen(parquet, columns, chunk.shard_uri)
        first = chunk.seek_bytes if predicates else chunk.start
        stop = parquet.rows if predicates else chunk.stop
        rows = read_row_range(parquet, _paths(chosen), chosen.key, predicates, first, stop)
        wanted = _wanted(chunk, rows, chunk.seek_position if predicates else chunk.start)
        yield from read_ahead(lambda item: _sample(*item, chunk, chosen, store), wanted, store)


def read_rows(uri: str, chosen: ParquetColumns, start: int, stop: int, store: Store = FILES) -> Iterator[Row]:
    """Read the chosen columns of the rows [start, stop).

    Raises:
        OSError: the storage failed, or there are fewer rows.
    """
    found = start
    with open_parquet(uri, store) as parquet:
        for found, row in read_row_range(parquet, _paths(chosen), chosen.key, [], start, stop):
            yield found, row
            found += 1
    if found < stop:
        raise missing_rows(uri, stop, found)


def earlier_keys(uri: str, key_column: str, stop: int, store: Store = FILES) -> set[str]:
    """Read the keys of the rows before `stop`, so that a chunk can detect a repeated key.

    Keys that cannot be read do not count as earlier keys.
    """
    keys: set[str] = set()
    if stop == 0:
        return keys
    with open_parquet(uri, store) as parquet:
        for _, row in read_row_range(parquet, [key_column], None, [], 0, stop):
            key = None if isinstance(row, BadRow) else named(row[key_column], key_column)[0]
            if key is not None:
                keys.add(key)
    return keys


def _chosen(parquet: OpenParquet, columns: Columns, uri: str) -> tuple[ParquetColumns, list[Predicate]]:
    """Return the columns and the predicates."""
    with parquet.verifying_schema():
        schema = parquet.schema
        return choose_columns(schema, columns, uri), parse_predicates(columns.where, schema, uri)


def _paths(chosen: ParquetColumns) -> list[str]:
    paths = (chosen.image, chosen.key, chosen.caption, *chosen.media, *chosen.fields)
    return list(dict.fromkeys(path for path in paths if path is not None))


def _wanted(chunk: Chunk, rows: Iterator[Row], position: int) -> Iterator[tuple[int, int, dict[str, Any] | BadRow]]:
    """Yield (position, row number, row) for the wanted samples of a chunk; the first of the rows is at `position`.

    Raises:
        OSError: there are fewer samples than planned.
    """
    wanted = set(chunk.only)
    for number, row in rows:
        if position >= chunk.start and (not wanted or position in wanted):
            yield position, number, row
        position += 1
        if position >= chunk.stop:
            return
    raise missing_rows(chunk.shard_uri, chunk.stop, position)


def _repeated(parquet: OpenParquet, key: str, numbers: np.ndarray | None) -> tuple[int, ...]:
    """Return the positions of samples whose key is repeated. Holds the keys of one shard in memory, as Arrow."""
    table = parquet.file.read(columns=[stored_path(parquet.schema, key)])
    if key in table.column_names and not pa.types.is_nested(table.column(key).type):
        keys = key_texts(table.column(key))
    else:
        batches = table.to_batches()
        found = [value for batch in batches for value in values_at(batch, key, range(batch.num_rows))]
        keys = pa.chunked_array([[named(value, key)[0] for value in found]], pa.string())
    if numbers is not None:
        keys = keys.take(pa.array(numbers))
    codes = pc.fill_null(keys.combine_chunks().dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    is_first = np.zeros(len(codes), bool)
    is_first[np.unique(codes, return_index=True)[1]] = True
    return tuple(np.flatnonzero(~is_first & (codes >= 0)).tolist())


def _sample(
    position: int, number: int, row: dict[str, Any] | BadRow, chunk: Chunk, chosen: ParquetColumns, store: Store
) -> Sample:
    folder, stem = place_of(chunk.shard_uri)
    values = row.values if isinstance(row, BadRow) else row
    name, problem = (None, None) if chosen.key is None else named(values.get(chosen.key), f"column {chosen.key}")
    key = f"{stem}/{number:08d}" if name is None else name
    if isinstance(row, BadRow):
        return Sample(position=position, key=key, problem=row.problem)
    if problem is None and position in chunk.duplicates:
        problem = repeated_key(key)
    return assembled(
        position,
        key,
        (chosen.image, *chosen.media),
        lambda path: image_in(row[path], folder, path, store),
        lambda: Caption() if chosen.caption is None else _caption(row[chosen.caption], chosen),
        problem,
        {path: row[path] for path in chosen.fields if row[path] is not None},
    )


def _caption(value: Any, chosen: ParquetColumns) -> Caption:
    if isinstance(value, SampleError):
        raise value
    return chosen_caption(value) if chosen.is_caption_named else caption_from(value)


def image_in(value: Any, folder: str, path: str, store: Store = FILES) -> EncodedImage:
    """Return the image in a value of a column: bytes, a struct of bytes and path, or a text.

    A text is the URI of a file, which may be relative to the shard's folder, or the image in base64. Bytes may be
    base64 too.

    Raises:
        SampleError: there is no image, or it cannot be fetched.
    """
    if isinstance(value, SampleError):
        raise value
    content, reference = value, ""
    if isinstance(value, dict):
        content, reference = value.get("bytes"), value.get("path")
        reference = reference if isinstance(reference, str) else ""
    if content is None and reference:
        content = reference
    if isinstance(content, str) and content.strip():
        stored = read_named(content, folder, store)
        content, reference = stored.content, reference or stored.name
    if content and len(content) > MAX_FILE_BYTES:
        raise SampleError("read", f"column {path} is larger than {MAX_FILE_BYTES} bytes")
    if content and isinstance(content, bytes):
        return EncodedImage(decoded_bytes(content), reference.rsplit("/", 1)[-1])
    raise SampleError(
        "read", f"column {path} is null or empty" + (f" ({clipped(reference, 120)})" if reference else "")
    )
