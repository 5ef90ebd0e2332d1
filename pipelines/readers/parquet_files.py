"""The rows of a Parquet file, read as a stream; rows that cannot be read have the reason.

A row group with damaged pages is read as far as possible, row by row near the damage; the next row group is read as
usual.

Tested in tests/pipelines/readers/test_parquet.py, test_damage.py and test_joined_parquet.py.
"""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import SampleError, SettingError, ShardChangedError
from pipelines.images.signatures import kind_of
from pipelines.readers.parquet_columns import stored_path, type_at
from pipelines.readers.parquet_footer import ColumnChunk, column_chunks, data_end
from pipelines.readers.parquet_values import is_binary, is_text, values_at
from pipelines.readers.predicates import Predicate
from pipelines.storage.damage import ContradictionError, is_damage, reason_of
from pipelines.storage.store import Store

ROWS_AT_ONCE = 32
KEYS_AT_ONCE = 65_536
BUFFER_BYTES = 4 << 20
"""Buffer of each column while it streams; at least the block size of `Store.open_read`."""
MAX_FOOTER_BYTES = 128 << 20
MAX_ROWS = 100_000_000
"""Maximum number of rows of one file; a footer with more is damaged."""
MAX_STATISTICS_BYTES = 4 << 20
"""Maximum size of a footer whose statistics are used."""
MAGIC = b"PAR1"
JOINED_RATIO = 1.1
"""Ratio of a file to its rows above which there is something else in the file too."""
TAIL_BYTES = 64 << 10
"""Number of bytes that pyarrow reads of a file first."""


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be read."""

    problem: SampleError
    values: dict[str, Any] = field(default_factory=dict)
    """The part of it that could be read: its key, if anything."""


Row = tuple[int, dict[str, Any] | BadRow]
"""(row number in the file, value by column path). A SampleError stands for a value that cannot be read."""


@dataclass(frozen=True)
class OpenParquet:
    """An open Parquet file."""

    file: pq.ParquetFile
    footer: bytes

    @property
    def rows(self) -> int:
        """Number of rows of the file."""
        return self.file.metadata.num_rows

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the file."""
        return self.file.schema_arrow

    @cached_property
    def column_chunks(self) -> list[dict[str, ColumnChunk]]:
        """Columns of each row group by path. Empty if the footer is large and parsing it would take too long."""
        if len(self.footer) > MAX_STATISTICS_BYTES:
            return []
        return [{chunk.path: chunk for chunk in chunks} for chunks in column_chunks(self.footer)]

    def row_groups(self, start: int, stop: int, predicates: Sequence[Predicate] = ()) -> list[tuple[int, int]]:
        """Return (row group, number of its first row) for those that may hold matching rows of [start, stop)."""
        found, first = [], 0
        for index in range(self.file.metadata.num_row_groups):
            rows = self.file.metadata.row_group(index).num_rows
            if first < stop and first + rows > start and all(self._may_meet(index, each) for each in predicates):
                found.append((index, first))
            first += rows
        return found

    def _may_meet(self, group: int, predicate: Predicate) -> bool:
        try:
            chunk = self.column_chunks[group].get(predicate.column) if self.column_chunks else None
            kind = type_at(self.schema, predicate.column)
            bounds = chunk.bounds(kind) if chunk is not None and kind is not None else None
        except Exception as error:  # statistics only save time; if they make no sense, all rows are read
            if not is_damage(error):
                raise
            return True
        return bounds is None or predicate.may_hold(*bounds)

    @contextmanager
    def verifying_schema(self) -> Iterator[None]:
        """Turn a SettingError about the columns into a ContradictionError if damage makes the columns look wrong."""
        try:
            yield
        except SettingError as error:
            if self._contradicts_itself():
                raise ContradictionError("its footer gives columns two names or types") from error
            raise

    def _contradicts_itself(self) -> bool:
        """Return whether the names and types of columns, which a footer contains more than once, differ."""
        columns = [self.file.schema.column(index) for index in range(len(self.file.schema))]
        described = {column.path: column.physical_type for column in columns}
        for chunks in self.column_chunks[:1]:
            if {path: chunk.physical_type for path, chunk in chunks.items()} != described:
                return True
        stored = (self.file.metadata.metadata or {}).get(b"ARROW:schema")
        if stored is None:
            return False
        written = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored)))
        return [(field.name, _kind(field.type)) for field in written] != [
            (field.name, _kind(field.type)) for field in self.schema
        ]


@contextmanager
def open_parquet(uri: str, store: Store) -> Iterator[OpenParquet]:
    """Open a Parquet file and read its footer. Raises what `is_damage` recognizes if the footer makes no sense."""
    with store.open_read(uri) as file:
        metadata, footer = _read_footer(file)
        with pq.ParquetFile(file, metadata=metadata, buffer_size=BUFFER_BYTES) as parquet:
            yield OpenParquet(parquet, footer)


def read_row_range(
    parquet: OpenParquet, paths: Sequence[str], key: str | None, predicates: list[Predicate], start: int, stop: int
) -> Iterator[Row]:
    """Yield the rows [start, stop) that match the predicates, with the values at the paths."""
    for group, first in parquet.row_groups(start, stop, predicates):
        yield from _GroupReader(parquet, group, first, paths, key, predicates).rows(start, stop)


def matching_rows(parquet: OpenParquet, predicates: list[Predicate]) -> np.ndarray:
    """Return the numbers of all rows that match the predicates. Reads only the columns of the predicates."""
    groups = parquet.row_groups(0, parquet.rows, predicates)
    return np.concatenate(
        [np.arange(0), *(_matches(parquet.file, group, first, predicates) for group, first in groups)]
    )


def _kind(kind: pa.DataType) -> str:
    """Return the part of a type that decides which role a column can have: text, bytes, or neither."""
    return "text" if is_text(kind) else "bytes" if is_binary(kind) else ""


def _read_footer(file: IO[bytes]) -> tuple[pq.FileMetaData, bytes]:
    """Return the metadata of a file and the footer that contains it.

    A footer that claims to be huge or to have too many rows counts as damage, so that damage cannot cost memory.
    """
    tail = _read_end(file, TAIL_BYTES)
    if not tail.endswith(MAGIC):
        file.seek(0)
        if kind := kind_of(file.read(TAIL_BYTES)):
            raise ContradictionError(f"it is not a Parquet file but {kind}")
    footer_bytes = int.from_bytes(tail[-8:-4], "little")
    if footer_bytes > MAX_FOOTER_BYTES:
        raise ContradictionError(f"its footer claims to have {footer_bytes} bytes; the limit is {MAX_FOOTER_BYTES}")
    if footer_bytes + 8 > len(tail):
        tail = _read_end(file, footer_bytes + 8)
    metadata = pq.read_metadata(pa.BufferReader(tail))
    counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows or metadata.num_rows > MAX_ROWS:
        raise ContradictionError(f"its footer counts {metadata.num_rows} rows, {sum(counts)} of them in row groups")
    footer = tail[-8 - footer_bytes : -8]
    _check_one_file(file, metadata, footer)
    return metadata, footer


def _check_one_file(file: IO[bytes], metadata: pq.FileMetaData, footer: bytes) -> None:
    """Raise ContradictionError for several files joined to one, where the last footer would read the first file.

    Checked if the file is larger than its rows. If all parts compress well, their pages make no sense instead.
    """
    start = file.seek(0, 2) - len(footer) - 8
    rows_bytes = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    if start <= rows_bytes * JOINED_RATIO or len(footer) > MAX_STATISTICS_BYTES:
        return
    before = start - data_end(footer)
    file.seek(max(before - len(MAGIC), 0))
    if before >= 3 * len(MAGIC) and file.read(2 * len(MAGIC)) == 2 * MAGIC:
        raise ContradictionError(f"it is several Parquet files joined to one; the last begins at byte {before}")


def _read_end(file: IO[bytes], size_bytes: int) -> bytes:
    file.seek(max(file.seek(0, 2) - size_bytes, 0))
    return file.read(size_bytes)


def _matching(batch: pa.RecordBatch, predicates: list[Predicate]) -> np.ndarray:
    mask = np.ones(batch.num_rows, bool)
    for predicate in predicates:
        mask &= predicate.matches(batch)
    return np.flatnonzero(mask)


def _matches(parquet: pq.ParquetFile, group: int, first: int, predicates: list[Predicate]) -> np.ndarray:
    """Return the numbers of the rows of a row group that match the predicates, reading a batch at a time."""
    names = sorted({each.column for each in predicates})
    found = [np.arange(0)]
    for batch in parquet.iter_batches(KEYS_AT_ONCE, row_groups=[group], columns=names):
        found.append(_matching(batch, predicates) + first)
        first += batch.num_rows
    return np.concatenate(found)


@dataclass(frozen=True)
class _GroupReader:
    """Reads the rows of one row group."""

    parquet: OpenParquet
    group: int
    first: int
    """Number of its first row."""
    paths: Sequence[str]
    key: str | None
    predicates: list[Predicate]

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Yield the rows of [start, stop): those that can be read, then the others with the reason."""
        start = max(start, self.first)
        stop = min(stop, self.first + self.parquet.file.metadata.row_group(self.group).num_rows)
        cause: Exception = ContradictionError("a row group has fewer rows than the footer says")
        for rows_at_once in (ROWS_AT_ONCE, 1):
            number = self.first
            try:
                for batch in self._batches(rows_at_once):
                    if number + batch.num_rows > start:
                        rows = list(self._batch_rows(batch, number, start, stop))
                        yield from rows
                        start = number + batch.num_rows
                    number += batch.num_rows
                    if number >= stop:
                        return
            except Exception as error:
                if not is_damage(error):
                    raise
                cause = error
        yield from self._bad_rows(start, stop, cause)

    def _batches(self, rows_at_once: int) -> Iterator[pa.RecordBatch]:
        used = [*self.paths, *(each.column for each in self.predicates)]
        names = sorted({stored_path(self.parquet.schema, path) for path in used})
        return self.parquet.file.iter_batches(rows_at_once, row_groups=[self.group], columns=names)

    def _batch_rows(self, batch: pa.RecordBatch, first: int, start: int, stop: int) -> Iterator[Row]:
        numbers = _matching(batch, self.predicates) + first
        numbers = numbers[(numbers >= start) & (numbers < stop)].tolist()
        at = [number - first for number in numbers]
        columns = [values_at(batch, path, at) for path in self.paths]
        for number, *values in zip(numbers, *columns, strict=True):
            yield number, dict(zip(self.paths, values, strict=True))

    def _bad_rows(self, start: int, stop: int, cause: Exception) -> Iterator[Row]:
        numbers = np.arange(start, stop)
        if self.predicates:  # planning has read these columns
            matches = _matches(self.parquet.file, self.group, self.first, self.predicates)
            numbers = matches[(matches >= start) & (matches < stop)]
        keys = self._keys() if len(numbers) else []
        for number in numbers.tolist():
            at = number - self.first
            values = {self.key: keys[at]} if self.key is not None and at < len(keys) else {}
            yield number, BadRow(problem=_problem(cause), values=values)

    def _keys(self) -> list[Any]:
        """Return the keys of the row group, as far as they can be read."""
        keys: list[Any] = []
        if self.key is not None:
            try:
                names = [stored_path(self.parquet.schema, self.key)]
                for batch in self.parquet.file.iter_batches(ROWS_AT_ONCE, row_groups=[self.group], columns=names):
                    keys += values_at(batch, self.key, range(batch.num_rows))
            except Exception as error:
                if not is_damage(error):
                    raise
        return keys


def missing_rows(uri: str, stop: int, found: int) -> ShardChangedError:
    """Return the error for a file with fewer samples than were planned."""
    return ShardChangedError(f"{uri} has changed while the job runs: it had {stop} samples or more, now {found}")


def _problem(error: Exception) -> SampleError:
    return SampleError("read", f"the Parquet data cannot be read: {reason_of(error)}")
