"""The rows of a block as a task takes them, without a copy of their pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

Row = Mapping[str, Any]


class BlockRows:
    """Rows of a block by index. Large binary values are buffers of the block, not copies."""

    def __init__(self, block: pa.Table, names: Sequence[str]) -> None:
        self._columns = {name: block.column(name) for name in names}

    def __getitem__(self, at: int) -> Row:
        return {name: _value(column[at]) for name, column in self._columns.items()}

    def copied(self, at: int) -> Row:
        """Return a row that does not keep its block in memory."""
        return {name: column[at].as_py() for name, column in self._columns.items()}


def _value(scalar: Any) -> Any:
    """Convert a value as `as_py` does, except for binary values."""
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StructScalar):
        return {name: _value(field) for name, field in scalar.items()}
    return scalar.as_buffer() if isinstance(scalar, pa.LargeBinaryScalar) else scalar.as_py()
