"""The contract between stages: a chunk travels as one Arrow table, one row for every sample, to the end.

Every table has the columns `chunk` (name), `chunk_json` (the chunk, in the first row only), `position`, `key`,
`error_stage` and `error_reason` (both null for samples that are fine). Stages add and drop other columns, never rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipelines.damage import reason_of
from pipelines.engine.attempts import Attempt
from pipelines.errors import SampleError
from pipelines.samples import Chunk
from pipelines.texts import printable

CONTRACT = pa.schema(
    [
        ("chunk", pa.string()),
        ("chunk_json", pa.string()),
        ("position", pa.int64()),
        ("key", pa.string()),
        ("error_stage", pa.string()),
        ("error_reason", pa.string()),
    ]
)


class BlockModel(Protocol):
    """What lives in an actor: turns the block of a chunk into another with the same rows."""

    def __call__(self, block: pa.Table, attempt: Attempt) -> pa.Table: ...


class BlockModelDescription(Protocol):
    """The light stand-in for a model that travels to the actor."""

    def build(self) -> BlockModel:
        """Load the model; called once in every actor."""
        ...


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The three stages of a job. Each is told of its attempt, and works on samples alone where that says so."""

    read: Callable[[Chunk, Attempt], pa.Table]
    model: BlockModelDescription
    publish: Callable[[pa.Table, Attempt], Mapping[str, Any]]
    """Publishes a block and returns its receipt, a flat dictionary."""


NOT_STORABLE = (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError)
"""What Arrow raises at Python values that it has no place for."""
ELSEWHERE = "published by another run"


def new_block(chunk: Chunk, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """The table of a chunk: `rows` hold position, key, the two error columns and those of `schema`, in order.

    A row with a value that the schema's type cannot hold becomes an error row.
    """
    text = chunk.to_json()
    whole = pa.schema([*CONTRACT, *schema])
    full = [
        {"chunk": chunk.name, "chunk_json": text if number == 0 else None, **row} for number, row in enumerate(rows)
    ]
    try:
        table = pa.Table.from_pylist(full, schema=whole)
    except NOT_STORABLE:
        for at, reason in unstorable(full, lambda one: pa.Table.from_pylist(one, schema=whole)).items():
            full[at] = {
                **{name: full[at][name] for name in ("chunk", "chunk_json", "position")},
                **{"key": printable(str(full[at]["key"])), "error_stage": "read", "error_reason": reason},
            }
        table = pa.Table.from_pylist(full, schema=whole)
    chunk_of(table)
    return table


def unstorable(rows: Sequence[Mapping[str, Any]], store: Callable[[list[Mapping[str, Any]]], Any]) -> dict[int, str]:
    """Index -> reason of the rows that `store`, called with one row, cannot take."""
    found: dict[int, str] = {}
    for at, row in enumerate(rows):
        try:
            store([row])
        except NOT_STORABLE as error:
            found[at] = SampleError("", f"a value cannot be stored: {reason_of(error)}").reason
    return found


def published_elsewhere(chunk: Chunk, schema: pa.Schema) -> pa.Table:
    """The table of a chunk that another run has published: no stage has anything to do."""
    rows = [{"position": at, "error_stage": ELSEWHERE} for at in chunk.positions]
    return new_block(chunk, rows, schema)


def is_published_elsewhere(table: pa.Table) -> bool:
    """Whether a table is what `published_elsewhere` made."""
    return table.column("error_stage")[0].as_py() == ELSEWHERE


def chunk_of(table: pa.Table) -> Chunk:
    """The chunk a table is, after checking that it is whole and alone.

    Raises:
        AssertionError: rows were lost, doubled, reordered or mixed with another chunk's.
    """
    names = table.column("chunk").unique().to_pylist()
    texts = [text for text in table.column("chunk_json").to_pylist() if text is not None]
    assert len(names) == len(texts) == 1, f"a block must be one chunk, whole; this one has pieces of {names}"
    chunk = Chunk.from_json(texts[0])
    positions = tuple(table.column("position").to_pylist())
    assert positions == chunk.positions, f"chunk {chunk.name}: {len(positions)} of {len(chunk.positions)} rows arrived"
    return chunk


def set_columns(table: pa.Table, columns: Mapping[str, pa.Array], drop: Sequence[str] = ()) -> pa.Table:
    """The table with columns replaced or added, and others dropped."""
    kept = [name for name in table.column_names if name not in drop and name not in columns]
    return pa.table({**{name: table.column(name) for name in kept}, **columns})
