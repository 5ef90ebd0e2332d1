"""Complete estimation runs in this process, without Ray: the real data plane with a fake model."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.dataset import layout
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.blocks import Flow, ModelStage
from pipelines.engine.resources import Resources
from pipelines.readers.sources import ImageShards, Source
from pipelines.runs.environment import Environment
from pipelines.runs.request import Job, RunRequest
from pipelines.runs.runner import run_job
from pipelines.samples import Columns
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.estimation import Estimation
from tests.support.fake_depth import FakeDepth
from tests.support.in_process import InProcess

TASK = Estimation(conditions=(ConditionColumn(name="depth", kind="depth"),), max_pixels=1_000_000)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The result of a run."""

    code: int
    rows: Sequence[Mapping[str, Any]] = ()
    """The rows of data/, ordered by shard and position."""
    errors: Sequence[Mapping[str, Any]] = ()
    said: Sequence[str] = field(default=())

    @property
    def reasons(self) -> dict[str, str]:
        """Map the key of each failed sample to its reason."""
        return {error["key"]: error["reason"] for error in self.errors}


def estimate(
    inputs: Sequence[Path],
    output: Path,
    columns: Columns | None = None,
    source: Source | None = None,
    task: Any = TASK,
    row_format: RowFormat = PARQUET,
    **request: Any,
) -> Ran:
    """Run once.

    Raises:
        SettingError: A setting is wrong; raised before the run starts.
    """
    chosen = source or ImageShards(columns=columns or Columns())
    said: list[str] = []

    def make_flow(output: str, resources: Resources) -> Flow:
        compute = ComputeRows(task=task, model=FakeDepth(), run_seed=0, batch_size=4)
        publish = PublishRows(output=output, task=task, provenance={"seed": 0}, row_format=row_format)
        published = partial(layout.is_published, output, extension=row_format.extension)
        read = ReadRows(task=task, source=chosen, published=published)  # type: ignore[arg-type]
        return Flow(read=read, models=(ModelStage(model=compute),), publish=publish)

    job = Job(
        name="estimate",
        settings={"a": 1},
        source=chosen,
        make_flow=make_flow,
        finish=lambda *counts: None,
        row_format=row_format,
    )
    environment = Environment(
        executor=InProcess(), say=said.append, heartbeat=lambda beat: nullcontext(), afterwards=lambda output: None
    )
    words = [str(path) for path in inputs]
    code = run_job(job, RunRequest(inputs=words, output=str(output), **{"chunk_size": 10, **request}), environment)
    return Ran(
        code=code,
        rows=_by_position(row for path in _files(output, "data") for row in row_format.read(str(path))),
        errors=_by_position(row for path in _files(output, "errors") for row in pq.read_table(path).to_pylist()),
        said=said,
    )


def _files(output: Path, folder: str) -> list[Path]:
    return sorted((output / folder).glob("*")) if (output / folder).exists() else []


def _by_position(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["shard"], row["position"]))
