"""The contract between stages: a chunk travels as one row of a Ray dataset, and its samples as one Arrow table.

The table, or block, has one row for every sample, from the first stage to the last, with the columns `position`, `key`,
`error_stage` and `error_reason` (both null for samples without an error). Stages add and drop other columns, never
rows. Between stages the block is one value of the row beside the description of its chunk (`with_block`), so that
nothing can split a chunk or mix it with another one.

Tested in tests/pipelines/engine/test_flow.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipelines.engine.attempts import Attempt
from pipelines.errors import SampleError, printable
from pipelines.samples import Chunk
from pipelines.storage.damage import reason_of

CONTRACT = pa.schema(
    [
        ("position", pa.int64()),
        ("key", pa.string()),
        ("error_stage", pa.string()),
        ("error_reason", pa.string()),
    ]
)
MODEL = "model"
"""The usual name of the only stage with a model."""
CHUNK, BLOCK = "chunk", "block"
"""Columns of a row that travels: the description of the chunk as JSON, and its block as a list of structs."""


class BlockModel(Protocol):
    """The model of a job, in an actor: turns the block of a chunk into another one with the same rows."""

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt) -> pa.Table: ...


class BlockModelDescription(Protocol):
    """The lightweight description of a model that travels to the actor."""

    def build(self) -> BlockModel:
        """Load the model; called once in every actor."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelStage:
    """A stage with a model, which has its own actors."""

    model: BlockModelDescription
    name: str = MODEL
    """Name of the stage, unique in its job: in the ledger, the resources and the error rows of samples."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The stages of a job. Each one gets its attempt, and processes samples one by one if the attempt says so."""

    read: Callable[[Chunk, Attempt], pa.Table]
    models: tuple[ModelStage, ...]
    """Every chunk passes through all of them, in this order."""
    publish: Callable[[Chunk, pa.Table, Attempt], Mapping[str, Any]]
    """Publishes a block and returns its receipt, a flat dictionary."""


NOT_STORABLE = (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError)
"""What Arrow raises for Python values that it cannot represent."""
ELSEWHERE = "published by another run"


def new_block(chunk: Chunk, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make the block of a chunk.

    Args:
        chunk: The chunk.
        rows: Position, key, the two error columns and those of `schema`, in the order of positions. A row with a value
            that its type in the schema cannot represent becomes an error row.
        schema: The columns besides those of the contract.
    """
    whole = pa.schema([*CONTRACT, *schema])
    try:
        block = pa.Table.from_pylist(list(rows), schema=whole)
    except NOT_STORABLE:
        storable = list(rows)
        for at, reason in unstorable(rows, lambda one: pa.Table.from_pylist(one, schema=whole)).items():
            key = printable(str(rows[at]["key"]))
            position = rows[at]["position"]
            storable[at] = {"position": position, "key": key, "error_stage": "read", "error_reason": reason}
        block = pa.Table.from_pylist(storable, schema=whole)
    check_block(chunk, block)
    return block


def unstorable(rows: Sequence[Mapping[str, Any]], store: Callable[[list[Mapping[str, Any]]], Any]) -> dict[int, str]:
    """Index -> reason, for each row that `store`, called with one row at a time, rejects."""
    found: dict[int, str] = {}
    for at, row in enumerate(rows):
        try:
            store([row])
        except NOT_STORABLE as error:
            found[at] = SampleError("", f"a value cannot be stored: {reason_of(error)}").reason
    return found


def published_elsewhere(chunk: Chunk, schema: pa.Schema) -> pa.Table:
    """The block of a chunk that another run has published: the stages have nothing to do."""
    rows = [{"position": at, "error_stage": ELSEWHERE} for at in chunk.positions]
    return new_block(chunk, rows, schema)


def is_published_elsewhere(block: pa.Table) -> bool:
    """Whether a block is the result of `published_elsewhere`."""
    return block.column("error_stage")[0].as_py() == ELSEWHERE


def check_block(chunk: Chunk, block: pa.Table) -> None:
    """Check that a block holds every sample of its chunk.

    Raises:
        AssertionError: Rows were lost, duplicated or reordered.
    """
    positions = tuple(block.column("position").to_pylist())
    assert positions == chunk.positions, (
        f"chunk {chunk.name}: a block must be one chunk, whole; {len(positions)} of {len(chunk.positions)} rows arrived"
    )


def set_columns(table: pa.Table, columns: Mapping[str, pa.Array], drop: Sequence[str] = ()) -> pa.Table:
    """Return the table with columns replaced or added, and others dropped."""
    others = [name for name in table.column_names if name not in drop and name not in columns]
    return pa.table({**{name: table.column(name) for name in others}, **columns})


def chunk_of(row: pa.Table) -> Chunk:
    """The chunk of a row that travels between stages.

    Raises:
        AssertionError: Several rows came together.
    """
    texts = row.column(CHUNK).to_pylist()
    assert len(texts) == 1, f"a stage gets one chunk at a time, not {len(texts)}"
    return Chunk.from_json(texts[0])


def with_block(row: pa.Table, block: pa.Table) -> pa.Table:
    """Put a block into the row of its chunk, without copying it."""
    chunked = block.combine_chunks().to_struct_array()
    structs = chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()  # the latter copies
    lists = pa.LargeListArray.from_arrays(pa.array([0, block.num_rows], pa.int64()), structs)
    return row.select([CHUNK]).append_column(BLOCK, lists)


def block_of(chunk: Chunk, row: pa.Table) -> pa.Table:
    """Take the block out of the row of its chunk, without copying it.

    Raises:
        AssertionError: Rows were lost, duplicated or reordered.
    """
    block = pa.Table.from_batches([pa.RecordBatch.from_struct_array(row.column(BLOCK)[0].values)])
    check_block(chunk, block)
    return block
