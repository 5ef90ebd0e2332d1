"""A minimal job: rows of text, and a model that copies the text or fails."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from pipelines.dataset.features import Features
from pipelines.errors import SampleError
from pipelines.samples import Sample
from pipelines.storage.store import FILES, Store

Row = Mapping[str, Any]
Fails = Callable[[str], bool]
"""Returns whether a row with this key fails in this attempt."""


class JsonLines:
    """Rows as JSON Lines, several times as fast as Parquet for a few rows."""

    name = "json"
    extension = "jsonl"

    def encode(self, rows: Iterable[Row], rows_schema: pa.Schema) -> bytes:
        """Encode rows, one per line."""
        return "".join(json.dumps(dict(row)) + "\n" for row in rows).encode()

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """Yield the rows, with all or some of their columns."""
        for row in read_lines(store.read_bytes(uri)):
            yield row if columns is None else {name: row[name] for name in columns}

    def column_names(self, uri: str, store: Store = FILES) -> frozenset[str]:
        """Return the names of the columns of the first row."""
        return frozenset(next(read_lines(store.read_bytes(uri))))

    def features(self, rows_schema: pa.Schema, passthrough: Collection[str]) -> Features:
        """Return nothing: the files are self-describing."""
        return {}


def read_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file."""
    return map(json.loads, content.decode().splitlines())


class CopyText:
    """A task whose result for a row is the text of its file."""

    inputs = pa.schema([("text", pa.string())])
    passthrough = pa.schema([])
    results = pa.schema([("result", pa.string())])
    columns = pa.schema([("value", pa.string())])
    schema_metadata: Mapping[str, str] = MappingProxyType({})
    seeds_by_shard = False

    def read(self, sample: Sample) -> Row:
        """Return the text of the file."""
        return {"caption": "", "width": 1, "height": 1, "text": sample.image.decode()}

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        """Return the same size for all rows."""
        return 1, 1

    def compute(self, model: Fails, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        """Return the text of each row, or a failure."""
        return [SampleError("model", "it fails") if model(row["key"]) else {"result": row["text"]} for row in rows]

    def write(self, row: Row) -> Row:
        """Return the columns of the published row."""
        return {"value": row["result"]}


@dataclass(frozen=True)
class Model:
    """Description of the model, which is a function that returns whether a key fails."""

    fails: Fails

    def build(self) -> Fails:
        """Load the model."""
        return self.fails
