"""Parquet shards: which column holds the pictures, and the rows of one chunk.

A chunk is read by row groups, so a shard whose row groups are much larger than a chunk is partly read several times:
`--chunk-size` near the row group size is cheapest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.samples import Columns

KEY_NAMES = ("key", "__key__")
CAPTION_NAMES = ("caption", "text", "prompt", "txt")
ROWS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ParquetColumns:
    """The columns of one shard by their role."""

    image: str
    key: str | None
    caption: str | None


def count_rows(uri: str) -> tuple[int, pa.Schema]:
    """Rows and schema, from the footer alone. Raises pyarrow.ArrowInvalid when it is no whole Parquet file."""
    with storage.open_read(uri) as file, pq.ParquetFile(file) as parquet:
        return parquet.metadata.num_rows, parquet.schema_arrow


def choose_columns(schema: pa.Schema, columns: Columns, uri: str) -> ParquetColumns:
    """The columns by name, or the only ones that can be meant.

    Raises:
        SettingError: a named column is missing or of a wrong type, or the image column is not clear.
    """
    candidates = [field.name for field in schema if _holds_bytes(field.type)]
    for option, name in (("image", columns.image), ("key", columns.key), ("caption", columns.caption)):
        if name is not None and name not in schema.names:
            raise SettingError(f"--{option}-column {name!r} is not in {uri}. Its columns: {', '.join(schema.names)}.")
    image = columns.image or ("image" if "image" in candidates else candidates[0] if len(candidates) == 1 else None)
    if image is None:
        raise SettingError(
            f"{uri} has {len(candidates)} columns that can hold pictures ({', '.join(candidates) or 'none'}); exactly "
            f"one is needed, or one called image. Name it with --image-column. Its columns: {', '.join(schema.names)}."
        )
    if image not in candidates:
        raise SettingError(
            f"--image-column {image!r} of {uri} has type {schema.field(image).type}; pictures are binary, or "
            f"struct<bytes, path>. Columns that fit: {', '.join(candidates) or 'none'}."
        )
    key = columns.key or next((name for name in KEY_NAMES if name in schema.names), None)
    captions = [name for name in CAPTION_NAMES if name in schema.names and _is_text(schema.field(name).type)]
    return ParquetColumns(image=image, key=key, caption=columns.caption or next(iter(captions), None))


def read_rows(uri: str, chosen: ParquetColumns, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position, row) of the rows [start, stop); rows hold the chosen columns."""
    names = [name for name in (chosen.image, chosen.key, chosen.caption) if name is not None]
    with storage.open_read(uri) as file, pq.ParquetFile(file) as parquet:
        groups, position = _row_groups(parquet.metadata, start, stop)
        for batch in parquet.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=names):
            first, last = max(start - position, 0), min(stop - position, batch.num_rows)
            position += batch.num_rows
            if first < last:
                rows = batch.slice(first, last - first).to_pylist()
                yield from enumerate(rows, position - batch.num_rows + first)
            if position >= stop:
                return


def earlier_keys(uri: str, key_column: str, stop: int) -> set[str]:
    """The keys of the rows before `stop`, so that a chunk can tell a repeated key; reads one column."""
    if stop == 0:
        return set()
    with storage.open_read(uri) as file, pq.ParquetFile(file) as parquet:
        groups, _ = _row_groups(parquet.metadata, 0, stop)
        values = parquet.read_row_groups(groups, columns=[key_column]).column(0).slice(0, stop)
    return {str(value) for value in values.to_pylist() if value is not None}


def _row_groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold [start, stop), and the position of the first one's first row."""
    groups, first, position = [], 0, 0
    for index in range(metadata.num_row_groups):
        rows = metadata.row_group(index).num_rows
        if position < stop and position + rows > start:
            first = position if not groups else first
            groups.append(index)
        position += rows
    return groups, first


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
