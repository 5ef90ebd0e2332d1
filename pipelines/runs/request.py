"""What a run is asked, and what one job adds to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.engine.blocks import Flow
from pipelines.engine.resources import Resources
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.readers.sources import Source

MAX_ERROR_RATE = 0.5
"""Where most samples fail, a setting is wrong more often than the samples are; of links of the web a third are dead."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every chunked job is asked."""

    inputs: Sequence[str]
    output: str
    chunk_size: int = 64
    limit: int | None = None
    since: datetime | None = None
    """Leave out the shards that were written before."""
    retry_errors: bool = False
    """Do the failed samples of finished chunks again."""
    give_up: bool = False
    """Take samples that could not be fetched for now for failed ones, and try them no more."""
    max_error_rate: float = MAX_ERROR_RATE
    """Share of failed samples above which the exit code is 3; it is 3 in any case where all have failed."""
    actors: int | None = None
    """The most actors; None: as many as there are GPUs, else one."""
    fewest_actors: int | None = None
    """Actors to start with; more follow while chunks wait for one. None: `actors`."""
    gpus_per_actor: float | None = None
    chunk_timeout_s: float | None = None
    """A worker that takes longer at one stage of a chunk, or at one sample of it, is ended."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one job adds: its settings, its source and its stages."""

    name: str
    settings: Mapping[str, Any]
    """Everything that changes a row's content, and nothing else."""
    source: Source
    make_flow: Callable[[str, Resources], Flow]
    """(output URI, resources) -> the stages."""
    finish: Callable[[str, int, int], None]
    """(output URI, rows in data/, samples in errors/) -> writes what lies beside the data, such as the dataset card."""
    row_format: RowFormat = PARQUET
    continues: Callable[[Mapping[str, Any]], bool] = lambda recorded: False
    """Whether settings that an earlier version recorded are these, although they say less."""
    load_options: Callable[[str], str] = lambda output: ""
    """Output URI -> code of further arguments for the line that loads the rows; see `pipelines.dataset.features`."""
