"""The rows of a block as a task takes them, without a copy of their pixels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Row = Mapping[str, Any]


class BlockRows:
    """Rows of a block by index. Large binary values are buffers of the block, not copies."""

    def __init__(self, block: pa.Table, names: Sequence[str]) -> None:
        self._columns = {name: _whole(block.column(name)) for name in names}
        self._readers = {name: _reader(column) for name, column in self._columns.items()}

    def __getitem__(self, at: int) -> Row:
        return {name: read(at) for name, read in self._readers.items()}

    def copied(self, at: int) -> Row:
        """Return a row that does not keep its block in memory."""
        return {name: column[at].as_py() for name, column in self._columns.items()}


def _whole(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _reader(array: Any) -> Callable[[int], Any]:
    """Return a function of an index that returns its value as `as_py` does, except for binary values."""
    if pa.types.is_struct(array.type):
        fields = {field.name: _reader(array.field(field.name)) for field in array.type}
        return lambda at: {name: read(at) for name, read in fields.items()} if array[at].is_valid else None
    if not pa.types.is_large_binary(array.type):
        return lambda at: array[at].as_py()
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset :]
    return lambda at: data.slice(ends[at], ends[at + 1] - ends[at]) if array[at].is_valid else None
