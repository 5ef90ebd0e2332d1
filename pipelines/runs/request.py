"""The request of a run, and what a job adds to it.

Tested in tests/pipelines/runs/test_placement.py and tests/pipelines/runs/test_exactly_once.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.dataset.layout import Version
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.blocks import Flow
from pipelines.engine.resources import Resources
from pipelines.readers.shard_index import MeasuredShard
from pipelines.readers.sources import Source
from pipelines.samples import Chunk

MAX_ERROR_RATE = 0.5
"""If most samples fail, usually a setting is wrong rather than the samples; a third of all web links are dead."""


@dataclass(frozen=True, kw_only=True)
class ActorRequest:
    """The actors that were asked for, for one of several models. None: to be chosen."""

    actors: int | None = None
    fewest_actors: int | None = None
    gpus_per_actor: float | None = None

    @classmethod
    def of(cls, request: "RunRequest") -> "ActorRequest":
        """Return the actors of a job with one model."""
        return cls(actors=request.actors, fewest_actors=request.fewest_actors, gpus_per_actor=request.gpus_per_actor)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The options that all chunked jobs have in common."""

    inputs: Sequence[str]
    output: str
    chunk_size: int = 64
    limit: int | None = None
    since: datetime | None = None
    """Skip shards that were written before this time."""
    retry_errors: bool = False
    """Process the failed samples of finished chunks again."""
    give_up: bool = False
    """Count samples that could not be fetched for now as failed, and do not try them again."""
    max_error_rate: float = MAX_ERROR_RATE
    """Share of failed samples above which the exit code is 3; it is always 3 if all samples failed."""
    actors: int | None = None
    """Maximum number of actors; None: one for each GPU, or a single one if there are no GPUs."""
    fewest_actors: int | None = None
    """Number of actors at the start; more are added while chunks wait. None: `actors`."""
    gpus_per_actor: float | None = None
    engines: Mapping[str, ActorRequest] = field(default_factory=dict)
    """Stage -> its actors, if the job has several models; `actors` and so on are then not used."""
    max_gpu_hours: float | None = None
    """The run ends before its actors have held GPUs for longer, hours times GPUs; None: no limit."""
    chunk_timeout_s: float | None = None
    """A worker that takes longer for one stage of a chunk, or for one sample of it, is killed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a job adds to a request: its settings, its source and its stages."""

    name: str
    settings: Mapping[str, Any]
    """Everything that changes the content of a row, and nothing else."""
    source: Source
    make_flow: Callable[[str, Resources], Flow]
    """(output URI, resources) -> the stages."""
    finish: Callable[[str, Sequence[Version]], None]
    """(output URI, finished chunks) -> writes the files beside the data, such as the dataset card."""
    row_format: RowFormat = PARQUET
    samples: int | None = None
    """Samples to process, once they are planned."""
    prepare: Callable[[str, Sequence[MeasuredShard], Sequence[Chunk]], Sequence[Chunk]] = (
        lambda output, shards, chunks: chunks
    )
    """(output URI, shards of the input, chunks to process) -> the chunks, with what must be known of the whole input.

    Called when Ray runs, before the chunks are processed."""
    continues: Callable[[Mapping[str, Any]], bool] = lambda recorded: False
    """Returns whether the settings recorded by an earlier version are equivalent, although they have fewer entries."""
    load_options: Callable[[str], str] = lambda output: ""
    """Output URI -> code of further arguments of the call that loads the rows, see `pipelines.dataset.features`."""
