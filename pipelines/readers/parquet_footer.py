"""A parser for the footer of a Parquet file: names, types and statistics of its column chunks.

pyarrow crashes the process, rather than raising an exception, if the metadata of a column chunk is damaged, so it is
not used here. The footer holds the structures of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift in Thrift's compact protocol,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.

Tested in tests/pipelines/readers/test_parquet.py and test_joined_parquet.py.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

PHYSICAL_TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
ROW_GROUPS, COLUMNS, META_DATA, TYPE, PATH, STATISTICS = 4, 1, 3, 1, 3, 12
MOST, LEAST, IS_MOST_EXACT, IS_LEAST_EXACT = 5, 6, 7, 8
"""Field numbers."""
PLACES = ((4, 5), (6, 7))
"""Field numbers (offset, length) of the indexes of a column chunk."""
DATA_PAGES, DICTIONARY, COMPRESSED_BYTES, BLOOM_FILTER, BLOOM_FILTER_BYTES = 9, 11, 7, 14, 15
"""Field numbers in the metadata of a column chunk."""


@dataclass(frozen=True, kw_only=True)
class ColumnChunk:
    """A column in a row group."""

    path: str
    physical_type: str
    least: bytes | None
    most: bytes | None
    """Smallest and largest value as Parquet stores them; None if they are not known exactly."""

    def bounds(self, kind: pa.DataType) -> tuple[Any, Any] | None:
        """Return the smallest and the largest value of a column of this type, or None if they are unknown."""
        form = _FORMS.get(str(kind))
        if self.least is None or self.most is None:
            return None
        if form is None:
            return (self.least.decode(), self.most.decode()) if pa.types.is_string(kind) else None
        least, most = struct.unpack(form, self.least)[0], struct.unpack(form, self.most)[0]
        return None if math.isnan(least) or math.isnan(most) else (least, most)


_FORMS = {
    **{"bool": "<?", "int8": "<i", "int16": "<i", "int32": "<i", "int64": "<q", "float": "<f", "double": "<d"},
    **{"uint8": "<I", "uint16": "<I", "uint32": "<I", "uint64": "<Q"},
}
"""Arrow type -> the `struct` format of its values in Parquet's statistics."""


def column_chunks(footer: bytes) -> list[list[ColumnChunk]]:
    """Return the columns of each row group. Raises nearly any exception if the footer is damaged."""
    groups = _Thrift(footer).struct()[ROW_GROUPS]
    return [[_column_chunk(column[META_DATA]) for column in group[COLUMNS]] for group in groups]


def data_end(footer: bytes) -> int:
    """Return the end of the data that a footer points at. Raises nearly any exception if the footer is damaged."""
    groups = _Thrift(footer).struct()[ROW_GROUPS]
    return max((_chunk_end(column) for group in groups for column in group[COLUMNS]), default=0)


def _chunk_end(column: Mapping[int, Any]) -> int:
    fields = column[META_DATA]
    start = min(fields[DATA_PAGES], fields.get(DICTIONARY) or fields[DATA_PAGES])
    places = [(column.get(offset, 0), column.get(length, 0)) for offset, length in PLACES]
    places += [(start, fields[COMPRESSED_BYTES]), (fields.get(BLOOM_FILTER, 0), fields.get(BLOOM_FILTER_BYTES, 0))]
    return max(offset + length for offset, length in places)


def _column_chunk(fields: Mapping[int, Any]) -> ColumnChunk:
    statistics = fields.get(STATISTICS, {})
    is_exact = statistics.get(IS_MOST_EXACT, True) and statistics.get(IS_LEAST_EXACT, True)
    return ColumnChunk(
        path=".".join(name.decode() for name in fields[PATH]),
        physical_type=PHYSICAL_TYPES[fields[TYPE]],
        least=statistics.get(LEAST) if is_exact else None,
        most=statistics.get(MOST) if is_exact else None,
    )


class _Thrift:
    """A reader of the compact protocol. Structures are dictionaries {field number: value}."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self._integer()
            kind = header & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):  # in lists
            return self._byte() == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            return self._list()
        if kind == 12:
            return self.struct()
        raise ValueError(f"Parquet footers have no type {kind}")

    def _list(self) -> list[Any]:
        header = self._byte()
        size = header >> 4 if header >> 4 < 15 else self._varint()
        return [self._value(header & 15) for _ in range(size)]

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._content):
            raise EOFError("the footer ends too early")
        return self._content[self._at - count : self._at]
