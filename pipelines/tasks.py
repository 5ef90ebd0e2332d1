"""From a task to a job that the runner runs: the same wiring for every command with a model."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipelines import layout, storage
from pipelines.blocks import Flow
from pipelines.card import Card, card_text, write_preview
from pipelines.request import Job
from pipelines.resources import Resources
from pipelines.row_formats import PARQUET, RowFormat
from pipelines.sources import Source
from pipelines.stages import ComputeRows, ModelDescription, PublishRows, ReadRows, Task
from pipelines.watched import WatchedModel, WatchedPublish, WatchedRead


class PlaceableModel(Protocol):
    """A model whose description is completed when the cluster is known."""

    def placed(self, device: str | None, cpu_threads: int) -> ModelDescription:
        """The description for actors of a kind: `device` None is the actor's GPU."""
        ...


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """One command line, understood: everything but the inputs, the output and the machines."""

    job: str
    """Part of the configuration: outputs of two jobs do not mix."""
    task: Task
    source: Source
    model: PlaceableModel
    provenance: Mapping[str, str | int | float]
    """What made the rows; `seed` is the run's."""
    other_settings: Mapping[str, Any]
    """What else changes a row's content."""
    batch_size: int
    card: Card
    row_format: RowFormat = PARQUET

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes a row's content, and the format where it is not Parquet: one output has one."""
        settings = {"job": self.job, **self.provenance, **self.other_settings}
        return settings if self.row_format is PARQUET else {**settings, "output_format": self.row_format.name}

    def as_job(self) -> Job:
        """The job for `runner.run_job`."""
        return Job(
            name=self.job,
            settings=self.settings,
            source=self.source,
            make_flow=self._flow,
            finish=self._finish,
            row_format=self.row_format,
        )

    def _flow(self, output: str, resources: Resources) -> Flow:
        threads = max(1, (os.cpu_count() or 1) // resources.actors)
        compute = ComputeRows(
            task=self.task,
            model=self.model.placed(None if resources.gpus_per_actor else "cpu", threads),
            run_seed=int(self.provenance["seed"]),
            batch_size=self.batch_size,
        )
        published = partial(layout.is_published, output, extension=self.row_format.extension)
        read = ReadRows(task=self.task, source=self.source, published=published)
        publish = PublishRows(output=output, task=self.task, provenance=self.provenance, row_format=self.row_format)
        return Flow(
            read=WatchedRead(stage=read, job=self.job),
            model=WatchedModel(stage=compute, job=self.job),
            publish=WatchedPublish(stage=publish, job=self.job),
        )

    def _finish(self, output: str, ok: int, bad: int) -> None:
        write_preview(output, self.card.previews, self.row_format)
        card = card_text(self.card, self.settings, list(self.provenance), ok, bad, self.row_format)
        storage.publish(storage.join(output, "README.md"), card.encode())
