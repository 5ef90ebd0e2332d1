"""Parquet shards: the rows of one chunk, read as a stream.

Only the columns in use are read, a few rows at a time, however large a row group is. A chunk enters at a row group, so
a shard whose row groups are much larger than a chunk is partly read several times: `--chunk-size` near the row group
size is cheapest.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import SampleError
from pipelines.fields import lookup, place_of, printable
from pipelines.parquet_columns import KEY_NAMES, ParquetColumns, choose_columns, stored_path
from pipelines.references import MAX_FILE_BYTES, fetch, gather, read_ahead
from pipelines.row_filters import Condition, parse_conditions
from pipelines.samples import Chunk, Columns, Sample, Stored, repeated_key
from pipelines.store import FILES, Store
from pipelines.tar_shards import INDEX_STRIDE, TarIndex

__all__ = ["KEY_NAMES", "ParquetColumns", "choose_columns", "count_rows", "earlier_keys", "index_parquet", "read_rows"]
ROWS_AT_ONCE = 32
KEYS_AT_ONCE = 65_536
BUFFER_BYTES = 4 << 20
"""Of each column while it streams; no smaller than the blocks of `storage.open_read`."""
Row = tuple[int, dict[str, Any]]
"""(row number in the shard, value by column path)"""


def count_rows(uri: str, store: Store = FILES) -> tuple[int, pa.Schema]:
    """Rows and schema, from the footer alone. Raises pyarrow.ArrowInvalid when it is no whole Parquet file."""
    with _open(uri, store) as parquet:
        return parquet.metadata.num_rows, parquet.schema_arrow


def index_parquet(uri: str, columns: Columns, store: Store = FILES) -> TarIndex:
    """What planning must know: samples, repeated keys, and with conditions the row of every INDEX_STRIDE-th sample.

    Reads the footer, the key column if there is one, and the columns of the conditions.

    Raises:
        SettingError: a column is missing, of a wrong type, or not clear.
        pyarrow.ArrowInvalid: no whole Parquet file.
    """
    with _open(uri, store) as parquet:
        chosen = choose_columns(parquet.schema_arrow, columns, uri)
        conditions = parse_conditions(columns.where, parquet.schema_arrow, uri)
        rows = parquet.metadata.num_rows
        numbers = np.concatenate([np.arange(0), *_matches(parquet, conditions)]) if conditions else None
        duplicates = () if chosen.key is None else _repeated(parquet, chosen.key, numbers)
    if numbers is None:
        return TarIndex(samples=rows, seek_bytes=(), duplicates=duplicates)
    return TarIndex(samples=len(numbers), seek_bytes=tuple(numbers[::INDEX_STRIDE].tolist()), duplicates=duplicates)


def read_parquet(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """The samples of a chunk, in order; pictures that are named instead of held are fetched."""
    _, schema = count_rows(chunk.shard_uri, store)
    chosen = choose_columns(schema, columns, chunk.shard_uri)
    wanted = set(chunk.only)
    rows = (
        (position, number, row)
        for position, (number, row) in enumerate(_sample_rows(chunk, columns, chosen, store), chunk.start)
        if not wanted or position in wanted
    )
    return read_ahead(lambda item: _sample(*item, chunk, chosen, store), rows, store)


def read_rows(uri: str, chosen: ParquetColumns, start: int, stop: int, store: Store = FILES) -> Iterator[Row]:
    """The rows [start, stop), with the chosen columns."""
    return _rows(uri, chosen, [], start, stop, store)


def earlier_keys(uri: str, key_column: str, stop: int, store: Store = FILES) -> set[str]:
    """The keys of the rows before `stop`, so that a chunk can tell a repeated key; reads one column."""
    if stop == 0:
        return set()
    with _open(uri, store) as parquet:
        groups, _ = _row_groups(parquet.metadata, 0, stop, [])
        values = parquet.read_row_groups(groups, columns=[key_column]).column(0).slice(0, stop)
    return {str(value) for value in values.to_pylist() if value is not None}


@contextmanager
def _open(uri: str, store: Store) -> Iterator[pq.ParquetFile]:
    with store.open_read(uri) as file, pq.ParquetFile(file, buffer_size=BUFFER_BYTES) as parquet:
        yield parquet


def _sample_rows(chunk: Chunk, columns: Columns, chosen: ParquetColumns, store: Store) -> Iterator[Row]:
    """The rows of the samples [start, stop) of a chunk.

    Raises:
        OSError: there are fewer than planned.
    """
    if not columns.where:
        yield from _rows(chunk.shard_uri, chosen, [], chunk.start, chunk.stop, store)
        return
    rows, schema = count_rows(chunk.shard_uri, store)
    conditions = parse_conditions(columns.where, schema, chunk.shard_uri)
    position = chunk.seek_position
    for row in _rows(chunk.shard_uri, chosen, conditions, chunk.seek_bytes, rows, store):
        if position >= chunk.start:
            yield row
        position += 1
        if position >= chunk.stop:
            return
    raise OSError(
        f"{chunk.shard_uri} has changed while the job runs: it had {chunk.stop} samples or more, now {position}"
    )


def _rows(
    uri: str, chosen: ParquetColumns, conditions: list[Condition], start: int, stop: int, store: Store
) -> Iterator[Row]:
    """(number, row) of the rows [start, stop) that meet the conditions."""
    paths = [path for path in (chosen.image, chosen.key, chosen.caption, *chosen.media) if path is not None]
    with _open(uri, store) as parquet:
        groups, skipped = _row_groups(parquet.metadata, start, stop, conditions)
        stored = {stored_path(parquet.schema_arrow, path) for path in [*paths, *(each.column for each in conditions)]}
        for group, position in zip(groups, skipped, strict=True):
            for batch in parquet.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=sorted(stored)):
                numbers = _met(batch, conditions) + position
                numbers = numbers[(numbers >= start) & (numbers < stop)]
                for row, number in zip(batch.take(numbers - position).to_pylist(), numbers.tolist(), strict=True):
                    yield number, {path: lookup(row, path) for path in paths}
                position += batch.num_rows
                if position >= stop:
                    return


def _matches(parquet: pq.ParquetFile, conditions: list[Condition]) -> Iterator[np.ndarray]:
    """The numbers of the rows that meet the conditions, a batch at a time."""
    groups, skipped = _row_groups(parquet.metadata, 0, parquet.metadata.num_rows, conditions)
    names = sorted({each.column for each in conditions})
    for group, position in zip(groups, skipped, strict=True):
        for batch in parquet.iter_batches(KEYS_AT_ONCE, row_groups=[group], columns=names):
            yield _met(batch, conditions) + position
            position += batch.num_rows


def _met(batch: pa.RecordBatch, conditions: list[Condition]) -> np.ndarray:
    mask = np.ones(batch.num_rows, bool)
    for condition in conditions:
        mask &= condition.met(batch)
    return np.flatnonzero(mask)


def _repeated(parquet: pq.ParquetFile, key: str, numbers: np.ndarray | None) -> tuple[int, ...]:
    """The positions of samples whose key an earlier sample has. Memory: the keys of one shard, as Arrow."""
    column = parquet.read(columns=[stored_path(parquet.schema_arrow, key)])
    if key in column.column_names and not pa.types.is_nested(column.column(key).type):
        keys = column.column(key)
    else:
        keys = pa.chunked_array([[lookup(row, key) for row in column.to_pylist()]])
    if numbers is not None:
        keys = keys.take(pa.array(numbers))
    codes = pc.fill_null(keys.combine_chunks().dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    is_first = np.zeros(len(codes), bool)
    is_first[np.unique(codes, return_index=True)[1]] = True
    return tuple(np.flatnonzero(~is_first & (codes >= 0)).tolist())


def _row_groups(
    metadata: pq.FileMetaData, start: int, stop: int, conditions: Sequence[Condition]
) -> tuple[list[int], list[int]]:
    """The row groups that may hold rows of [start, stop) that meet the conditions, and their first rows' numbers."""
    groups, first_rows, position = [], [], 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if position < stop and position + group.num_rows > start and all(each.may_hold(group) for each in conditions):
            groups.append(index)
            first_rows.append(position)
        position += group.num_rows
    return groups, first_rows


def _sample(
    position: int, number: int, row: dict[str, Any], chunk: Chunk, chosen: ParquetColumns, store: Store
) -> Sample:
    folder, stem = place_of(chunk.shard_uri)
    value = None if chosen.key is None else row[chosen.key]
    key = f"{stem}/{number:08d}" if value is None else printable(str(value))
    problem = None
    if chosen.key is not None and value is None:
        problem = SampleError("read", f"column {chosen.key} is null")
    elif position in chunk.duplicates:
        problem = repeated_key(key)
    paths = (chosen.image, *chosen.media)
    pictures, problem = gather(paths, lambda path: _picture(row[path], folder, path, store), problem)
    image = pictures.get(chosen.image, Stored(b"", ""))
    caption = row[chosen.caption] if chosen.caption is not None else None
    return Sample(
        position=position,
        key=key,
        image=image.content,
        image_name=image.name,
        caption="" if caption is None else str(caption),
        media={path: pictures[path] for path in chosen.media if path in pictures},
        problem=problem,
    )


def _picture(value: Any, folder: str, path: str, store: Store) -> Stored:
    """Bytes, a struct of bytes and path, or the URI of a file, relative ones to the shard's folder."""
    content, reference = value, ""
    if isinstance(value, dict):
        content, reference = value.get("bytes"), str(value.get("path") or "")
    elif isinstance(value, str):
        content, reference = None, value
    if content and len(content) > MAX_FILE_BYTES:
        raise SampleError("read", f"column {path} is larger than {MAX_FILE_BYTES} bytes")
    if content:
        return Stored(content, reference.rsplit("/", 1)[-1])
    if content is None and reference:
        stored = fetch(storage.resolve(reference, folder), store)
        if stored.content:
            return stored
    raise SampleError("read", f"column {path} is null or empty" + (f" ({reference})" if reference else ""))
