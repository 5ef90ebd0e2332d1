"""The smallest job there is: a row's text, and a model that copies it or fails."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from pipelines.errors import SampleError
from pipelines.samples import Sample
from pipelines.storage.store import FILES, Store

Row = Mapping[str, Any]
Fails = Callable[[str], bool]
"""Whether a row with this key fails this time."""


@dataclass(frozen=True)
class JsonLines:
    """Rows as text: several times as fast as Parquet for a handful of rows."""

    name: str = "json"
    extension: str = "jsonl"

    def encode(self, rows: Iterable[Row], rows_schema: pa.Schema) -> bytes:
        """A line a row."""
        return "".join(json.dumps(dict(row)) + "\n" for row in rows).encode()

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """The rows, whole or some columns of them."""
        for row in read_lines(store.read_bytes(uri)):
            yield row if columns is None else {name: row[name] for name in columns}


def read_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    return map(json.loads, content.decode().splitlines())


class CopyText:
    """A task: the result of a row is what its file says."""

    inputs = pa.schema([("text", pa.string())])
    kept = pa.schema([])
    results = pa.schema([("result", pa.string())])
    columns = pa.schema([("value", pa.string())])
    notes: Mapping[str, str] = MappingProxyType({})
    seeds_by_shard = False

    def read(self, sample: Sample) -> Row:
        """The file's text."""
        return {"caption": "", "width": 1, "height": 1, "text": sample.image.decode()}

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        """One for all."""
        return 1, 1

    def compute(self, model: Fails, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        """The text again, or a failure."""
        return [SampleError("model", "it fails") if model(row["key"]) else {"result": row["text"]} for row in rows]

    def write(self, row: Row) -> Row:
        """The column of the published row."""
        return {"value": row["result"]}


@dataclass(frozen=True)
class Model:
    """The description of the model, which is a function that says who fails."""

    fails: Fails

    def build(self) -> Fails:
        """Load it."""
        return self.fails
