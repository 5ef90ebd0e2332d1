"""What a job adds to the three stages: its task and the description of its model."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from pipelines.engine.attempts import Attempt
from pipelines.errors import SampleError
from pipelines.samples import Chunk, Sample

Row = Mapping[str, Any]


UNWATCHED = Attempt()
"""Of a stage that is called without Ray."""


TOKENS_CUT = "prompt_tokens_cut"
"""Column of tasks with prompts: tokens of the prompt that the text encoder did not get because it takes no more."""


COMMON = pa.schema(
    [("caption", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("caption_note", pa.string())]
)
"""Read with every row, seen by the model, written with every row."""


class Task(Protocol):
    """What one kind of job does with a row. Light and picklable; every method is a function of its arguments."""

    @property
    def seeds_by_shard(self) -> bool:
        """Whether a row's seed depends on its shard besides its key: so for images made from noise, where two shards
        with a key in common would give one image twice."""
        ...

    @property
    def inputs(self) -> pa.Schema:
        """Columns read for the model: dropped when it is done."""
        ...

    @property
    def kept(self) -> pa.Schema:
        """Columns read for the writing: the model does not see them."""
        ...

    @property
    def results(self) -> pa.Schema:
        """Columns that the model adds."""
        ...

    @property
    def columns(self) -> pa.Schema:
        """Columns of a published row that only this task has."""
        ...

    @property
    def notes(self) -> Mapping[str, str]:
        """What a reader of the files must know, for the schema's metadata."""
        ...

    def read(self, sample: Sample) -> Row:
        """The values of COMMON, `inputs` and `kept`. Raises SampleError."""
        ...

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        """(width, height) at which the model works on a row of COMMON and `inputs`; equal sizes share a batch."""
        ...

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        """The values of `results` of rows of one working size, or what is wrong with a row."""
        ...

    def write(self, row: Row) -> Row:
        """The values of `columns`, of a row of COMMON, `kept` and `results`; may name `width` and `height` anew."""
        ...


class ModelDescription(Protocol):
    """The light stand-in for a model that travels to the actor."""

    def build(self) -> Any:
        """Load the model; called once in every actor."""
        ...


def row_seed(run_seed: int, key: str, shard: str = "") -> int:
    """The seed of a row, 63 bits: a function of its arguments, the same on every machine.

    shard: URI of the shard, for tasks whose rows must differ where two shards have a key in common.
    """
    name = f"{shard}\n{key}" if shard else key
    digest = hashlib.sha256(f"{run_seed}\n{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_of(task: Task, run_seed: int, key: str, chunk: Chunk) -> int:
    """The seed of a row of a chunk."""
    return row_seed(run_seed, key, chunk.shard_uri if task.seeds_by_shard else "")


def _rows_cut(block: pa.Table) -> int:
    """Rows whose prompt was longer than the text encoder takes."""
    return sum(count > 0 for count in block.column(TOKENS_CUT).to_pylist() if count is not None)
