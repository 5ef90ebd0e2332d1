"""What a job adds to the stages: how rows are read and written, what a model does with them, and its description.

Tested in tests/pipelines/tasks/, with the tasks of the jobs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from pipelines.engine.attempts import Attempt
from pipelines.errors import SampleError
from pipelines.samples import Chunk, Sample

Row = Mapping[str, Any]

UNSUPERVISED = Attempt()
"""The attempt of a stage that is called without Ray."""

TOKENS_CUT = "prompt_tokens_cut"
"""Column of tasks with prompts: number of tokens of the prompt beyond the limit of the text encoder."""

COMMON = pa.schema(
    [("caption", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("caption_note", pa.string())]
)
"""Columns of every row, from the first stage to the output."""


class ModelTask(Protocol):
    """What one model does with a row. Lightweight and picklable; every method is a function of its arguments."""

    @property
    def seeds_by_shard(self) -> bool:
        """Whether the seed of a row depends on its shard as well as its key.

        This is the case for images made from noise, which would be identical for equal keys in two shards.
        """
        ...

    @property
    def inputs(self) -> pa.Schema:
        """Columns that the model gets; they are dropped after the last model that needs them."""
        ...

    @property
    def results(self) -> pa.Schema:
        """Columns that the model adds."""
        ...

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        """(width, height) at which the model processes a row of COMMON and `inputs`; equal sizes share a batch."""
        ...

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        """Return the values of `results` for rows of one working size, or an error for a row that fails."""
        ...


class RowTask(Protocol):
    """How rows are read and written. Lightweight and picklable; every method is a function of its arguments."""

    @property
    def seeds_by_shard(self) -> bool:
        """See `ModelTask`."""
        ...

    @property
    def inputs(self) -> pa.Schema:
        """Columns that are read for the models."""
        ...

    @property
    def passthrough(self) -> pa.Schema:
        """Columns that are read for the output; the models do not see them."""
        ...

    @property
    def columns(self) -> pa.Schema:
        """Columns of a published row that only this job has."""
        ...

    @property
    def schema_metadata(self) -> Mapping[str, str]:
        """What a reader of the files must know, as metadata of their schema."""
        ...

    def read(self, sample: Sample) -> Row:
        """Return the values of COMMON, `inputs` and `passthrough`. Raises SampleError."""
        ...

    def write(self, row: Row) -> Row:
        """Return the values of `columns` of a row of COMMON, `passthrough` and the results of the models.

        It may contain new values of COMMON. Raises SampleError.
        """
        ...


class Task(ModelTask, RowTask, Protocol):
    """The task of a job with one model."""


class ModelDescription(Protocol):
    """The lightweight description of a model that travels to the actor."""

    def build(self) -> Any:
        """Load the model; called once in every actor."""
        ...


def row_seed(run_seed: int, key: str, shard: str = "") -> int:
    """The seed of a row, 63 bits: a function of the arguments, the same on every machine.

    Args:
        run_seed: The seed of the run.
        key: The key of the row.
        shard: URI of the shard, for tasks whose rows must differ if two shards have a key in common.
    """
    name = f"{shard}\n{key}" if shard else key
    digest = hashlib.sha256(f"{run_seed}\n{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_of(task: ModelTask | RowTask, run_seed: int, key: str, chunk: Chunk) -> int:
    """The seed of a row of a chunk."""
    return row_seed(run_seed, key, chunk.shard_uri if task.seeds_by_shard else "")
