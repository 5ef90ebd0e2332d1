"""The groups of a corpus: runs of consecutive rows that are read together, with the rows in use and their weights.

A group of a Parquet file is a row group, which Parquet can only read whole. A group of any other shard has as many
samples as its index lets a reader skip.

Tested in tests/pipelines/training/test_corpus.py.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.errors import SettingError
from pipelines.readers.parquet_columns import check_named, listed, type_at
from pipelines.readers.parquet_files import OpenParquet, matching_rows, open_parquet
from pipelines.readers.parquet_values import plain_type, values_at
from pipelines.readers.predicates import parse_predicates
from pipelines.readers.shard_index import INDEX_STRIDE, MeasuredShard
from pipelines.samples import Chunk
from pipelines.storage.store import Store

GROUP_SAMPLES = 2 * INDEX_STRIDE
"""Samples of a group of a shard that is no Parquet file."""
GROUP_BYTES = 256 << 20
"""Larger row groups are cut, although each part has to be read from the beginning of the row group."""
WEIGHTS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class Group:
    """Consecutive rows of a shard, of which some are used."""

    chunk: Chunk
    """Its `positions` are the rows in use."""
    size_bytes: int
    """Stored size of all its rows, an estimate."""
    weights: tuple[float, ...] = ()
    """Weight of each of the chunk's positions; empty if all have the weight 1."""

    @property
    def rows(self) -> int:
        """Number of rows in use."""
        return len(self.chunk.only) or self.chunk.stop - self.chunk.start

    def weight(self, position: int) -> float:
        """Return the weight of the row at a position in use."""
        return self.weights[self.chunk.positions.index(position)] if self.weights else 1.0

    def keeping(self, keep: np.ndarray) -> "Group | None":
        """Return the group with only some of the rows in use, given as bool (rows,); None if none is left."""
        kept = np.flatnonzero(keep).tolist()
        if not kept:
            return None
        positions = self.chunk.positions
        only = () if len(kept) == self.chunk.stop - self.chunk.start else tuple(positions[at] for at in kept)
        weights = tuple(self.weights[at] for at in kept) if self.weights else ()
        return dataclasses.replace(self, chunk=dataclasses.replace(self.chunk, only=only), weights=weights)


def parquet_groups(
    found: MeasuredShard, where: tuple[str, ...], weight_column: str | None, store: Store, left_out: Counter[str]
) -> Iterator[Group]:
    """Yield the groups of a Parquet file. Reads its footer, and the columns of the predicates and of the weights.

    Args:
        found: The file, measured with the same predicates.
        where: Predicates, such as `entropy>=5`.
        weight_column: Column with the weights of the rows.
        store: Where the file is.
        left_out: Receives the number of rows without a usable weight, by reason.

    Raises:
        SettingError: the column of the weights is missing or holds no numbers.
    """
    with open_parquet(found.shard.uri, store) as parquet:
        numbers = matching_rows(parquet, parse_predicates(where, parquet.schema, found.shard.uri)) if where else None
        weights = None if weight_column is None else read_weights(parquet, weight_column, found.shard.uri)
        sizes = [parquet.file.metadata.row_group(index) for index in range(parquet.file.metadata.num_row_groups)]
        edges = np.cumsum([0, *(size.num_rows for size in sizes)])
        cuts = [
            part
            for size, first, last in zip(sizes, edges, edges[1:], strict=False)
            for part in _parts(int(first), int(last), size.total_byte_size)
        ]
    for first, last, size_bytes in cuts:
        group = _group(found, first, last, size_bytes, numbers)
        if group is not None and weights is not None:
            rows = np.arange(first, last) if numbers is None else numbers[(numbers >= first) & (numbers < last)]
            group = _weighted(group, weights[rows], left_out)
        if group is not None:
            yield group


def other_groups(found: MeasuredShard) -> Iterator[Group]:
    """Yield the groups of a shard of another format. The unreadable rest of a damaged shard belongs to none."""
    index = found.index
    if index is None or index.samples == 0:
        return
    row_bytes = max(1, found.shard.size_bytes // index.samples)
    step = GROUP_SAMPLES if index.seek_bytes else max(1, index.samples)
    for start in range(0, index.samples, step):
        stop = min(start + step, index.samples)
        stride = min(start // INDEX_STRIDE, len(index.seek_bytes) - 1) if index.seek_bytes else 0
        chunk = _chunk(found, start, stop, stride * INDEX_STRIDE, index.seek_bytes[stride] if index.seek_bytes else 0)
        yield Group(chunk=chunk, size_bytes=row_bytes * (stop - start))


def read_weights(parquet: OpenParquet, column: str, uri: str) -> np.ndarray:
    """Read a column of weights as float32 (rows,); NaN where there is none.

    Raises:
        SettingError: there is no such column, or it holds no numbers.
    """
    check_named(parquet.schema, "--weight-column", column, uri)
    kind = plain_type(type_at(parquet.schema, column) or pa.null())
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        numeric = [field.name for field in parquet.schema if pa.types.is_primitive(field.type)]
        raise SettingError(
            f"--weight-column {column!r} of {uri} has type {kind}; weights are numbers of at least 0. Columns of "
            f"numbers: {listed(numeric)}."
        )
    found = [
        np.nan if value is None or isinstance(value, Exception) else float(value)
        for batch in parquet.file.iter_batches(WEIGHTS_AT_ONCE, columns=[column.split(".")[0]])
        for value in values_at(batch, column, range(batch.num_rows))
    ]
    return np.array(found, np.float32)


def _parts(first: int, last: int, size_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, last row, bytes) of the parts of a row group."""
    count = min(max(1, -(-size_bytes // GROUP_BYTES)), max(1, last - first))
    edges = np.linspace(first, last, count + 1).round().astype(int).tolist()
    for start, stop in zip(edges, edges[1:], strict=False):
        if stop > start:
            yield start, stop, size_bytes // count


def _group(found: MeasuredShard, first: int, last: int, size_bytes: int, numbers: np.ndarray | None) -> Group | None:
    """Return the rows [first, last) of a file; with predicates, positions count only the rows that match them."""
    if numbers is None:
        return Group(chunk=_chunk(found, first, last, first, 0), size_bytes=size_bytes)
    start, stop = (int(np.searchsorted(numbers, edge)) for edge in (first, last))
    if start == stop:
        return None
    share = (stop - start) / (last - first)
    chunk = _chunk(found, start, stop, start, int(numbers[start]))
    return Group(chunk=chunk, size_bytes=max(1, round(size_bytes * share)))


def _weighted(group: Group, weights: np.ndarray, left_out: Counter[str]) -> Group | None:
    """Return the group with its weights, without the rows of no weight."""
    for reason, are_such in (
        ("no weight (null or NaN)", np.isnan(weights)),
        ("a negative weight", weights < 0),
        ("weight 0", weights == 0),
    ):
        if count := int(are_such.sum()):
            left_out[reason] += count
    return dataclasses.replace(group, weights=tuple(weights.tolist())).keeping(weights > 0)


def _chunk(found: MeasuredShard, start: int, stop: int, seek_position: int, seek_bytes: int) -> Chunk:
    shard, index = found.shard, found.index
    assert index is not None
    return Chunk(
        name=f"{shard.stem}-{start}",
        shard_uri=shard.uri,
        shard_format=shard.format,
        shard_fingerprint=shard.fingerprint,
        start=start,
        stop=stop,
        seek_position=seek_position,
        seek_bytes=seek_bytes,
        gzip_index_uri=index.gzip_index_uri,
        duplicates=tuple(at for at in index.duplicates if start <= at < stop),
    )
