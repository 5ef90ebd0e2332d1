"""From a task to a job that the runner runs: the same wiring for every command with a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipelines.dataset import layout
from pipelines import chunk_names
from pipelines import storage
from pipelines.engine.blocks import Flow
from pipelines.dataset.card import Card, card_text
from pipelines.dataset.preview import write_preview
from pipelines.damage import is_damage
from pipelines.dataset.features import Features, load_options
from pipelines.dataset.ownership import is_our_text, marked, publish_beside
from pipelines.tasks.model import REVISIONS, ModelIdentity
from pipelines.texts import say
from pipelines.runs.request import Job
from pipelines.engine.resources import Resources
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.readers.sources import Source
from pipelines.stages.task import TOKENS_CUT, ModelDescription, Task
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.stages.timed import WatchedModel, WatchedPublish, WatchedRead

ADDED_COLUMNS = frozenset({TOKENS_CUT, "caption_note"})
"""Columns that version 0.2.0 did not write."""


MODEL_CONFIG = "model_config"
"""The setting that holds `ModelIdentity.config`."""


class PlaceableModel(Protocol):
    """A model whose description is completed when the cluster is known."""

    def placed(self, device: str | None, actors_per_node: int) -> ModelDescription:
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
    identity: ModelIdentity | None = None
    """What is known of the model, where there is one."""
    gives_up: bool = False
    """Of `ReadRows`."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes a row's content, and the format where it is not Parquet: one output has one."""
        made_by = {name: value for name, value in self.provenance.items() if name not in REVISIONS}
        settings = {"job": self.job, **made_by, **self.other_settings, **self._model_config}
        return settings if self.row_format is PARQUET else {**settings, "output_format": self.row_format.name}

    @property
    def _model_config(self) -> dict[str, Any]:
        """What of the model beside its weights changes a row; the offset of steps does in one spacing alone."""
        if self.identity is None or not self.identity.config:
            return {}
        config = dict(self.identity.config)
        if self.provenance.get("timestep_spacing") != "leading":
            config["scheduler"] = {name: v for name, v in config["scheduler"].items() if name != "steps_offset"}
        return {MODEL_CONFIG: config}

    def continues(self, recorded: Mapping[str, Any]) -> bool:
        """Whether these are settings of an earlier version, which recorded no configuration of the model.

        It hashed copies of the weights that nobody loads, too.
        """
        if MODEL_CONFIG in recorded or self.identity is None:
            return False
        ours = json.loads(json.dumps({name: value for name, value in self.settings.items() if name != MODEL_CONFIG}))
        different = {name for name in {*ours, *recorded} if ours.get(name) != recorded.get(name)}
        if different == {"weights_sha256"}:
            return recorded["weights_sha256"] == self.identity.hashed_by_earlier_versions()
        return not different

    def as_job(self) -> Job:
        """The job for `runner.run_job`."""
        return Job(
            name=self.job,
            settings=self.settings,
            source=self.source,
            make_flow=self._flow,
            finish=self._finish,
            row_format=self.row_format,
            continues=self.continues,
            load_options=lambda output: load_options(self._features(output)),
        )

    def _features(self, output: str) -> Features:
        return self.row_format.features(self._publish(output).rows_schema(), self.task.kept.names)

    def _flow(self, output: str, resources: Resources) -> Flow:
        compute = ComputeRows(
            task=self.task,
            model=self.model.placed(None if resources.gpus_per_actor else "cpu", resources.actors_per_node),
            run_seed=int(self.provenance["seed"]),
            batch_size=self.batch_size,
        )
        published = partial(layout.is_published, output, extension=self.row_format.extension)
        read = ReadRows(task=self.task, source=self.source, published=published, gives_up=self.gives_up)
        return Flow(
            read=WatchedRead(stage=read, job=self.job),
            model=WatchedModel(stage=compute, job=self.job),
            publish=WatchedPublish(stage=self._publish(output), job=self.job),
        )

    def _publish(self, output: str) -> PublishRows:
        return PublishRows(
            output=output,
            task=self.task,
            provenance=self.provenance,
            row_format=self.row_format,
            omit=self._columns_without(output),
        )

    def _columns_without(self, output: str) -> frozenset[str]:
        """Columns of a later version than the one that began this output: its first file that is whole tells."""
        for info in storage.iter_files(storage.join(output, "data")):
            if not chunk_names.is_rows_file(info.uri, self.row_format.extension):
                continue
            try:
                return ADDED_COLUMNS - self.row_format.column_names(info.uri)
            except Exception as error:  # another run has removed it, or it is damaged: the next one tells
                if not (isinstance(error, FileNotFoundError) or is_damage(error)):
                    raise
        return frozenset()

    def _finish(self, output: str, ok: int, bad: int) -> None:
        preview = write_preview(output, self.card.previews, self.row_format)
        names = list(self.provenance)
        card = card_text(self.card, self.settings, names, ok, bad, self.row_format, self._features(output), preview)
        publish_beside(output, "README.md", marked(card), is_our_text, say)
