"""Turns a task into the job that the runner runs, in the same way for every command with a model."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipelines.dataset import layout
from pipelines.dataset.card import Card, card_text
from pipelines.dataset.features import Features, load_options
from pipelines.dataset.ownership import is_our_text, marked, publish_beside
from pipelines.dataset.preview import write_preview
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.blocks import Flow
from pipelines.engine.resources import Resources
from pipelines.errors import say
from pipelines.readers.sources import Source
from pipelines.runs.request import Job
from pipelines.samples import is_rows_file
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.stages.task import TOKENS_CUT, Task
from pipelines.stages.timed import TimedModel, TimedPublish, TimedRead
from pipelines.storage import files, uris
from pipelines.storage.damage import is_damage
from pipelines.tasks.model_identity import REVISIONS, ModelIdentity
from unicon.options import SamplingOptions

ADDED_COLUMNS = frozenset({TOKENS_CUT, "caption_note"})
"""Columns that version 0.2.0 did not write."""
MODEL_CONFIG = "model_config"
"""The setting that holds `ModelIdentity.config`."""


class SamplingTask(Task, Protocol):
    """A task whose model samples."""

    @property
    def sampling(self) -> SamplingOptions:
        """How the model samples: the value that the task passes to every call."""
        ...

    @property
    def rows_per_sample(self) -> int:
        """Rows of micro-batches that the model processes for a sample, such as its views; a lower bound."""
        ...


class PlaceableModel(Protocol):
    """A model whose description is completed when the cluster is known."""

    def with_device(self, device: str | None, actors_per_node: int) -> "PlaceableModel":
        """Return the description for actors with this device; None stands for the GPU of the actor."""
        ...

    def with_work(self, rows: int | None) -> "PlaceableModel":
        """Return the description for actors that compute `rows` rows each; see `UniConModel.with_work`."""
        ...

    def build(self) -> Any:
        """See `ModelDescription`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """What a command line means, except for the inputs, the output and the machines."""

    job: str
    """Name of the job. It is part of the configuration: two jobs never share an output."""
    task: SamplingTask
    source: Source
    model: PlaceableModel
    provenance: Mapping[str, str | int | float]
    """What made the rows; `seed` is the seed of the run."""
    other_settings: Mapping[str, Any]
    """Other settings that change the content of a row."""
    batch_size: int | None
    """See `ComputeRows`."""
    card: Card
    row_format: RowFormat = PARQUET
    identity: ModelIdentity | None = None
    """The identity of the model, if there is one."""
    gives_up: bool = False
    """See `ReadRows`."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the content of a row, and the format of the output if it is not Parquet."""
        made_by = {name: value for name, value in self.provenance.items() if name not in REVISIONS}
        settings = {"job": self.job, **made_by, **self.other_settings, **self._model_config}
        return settings if self.row_format is PARQUET else {**settings, "output_format": self.row_format.name}

    @property
    def _model_config(self) -> dict[str, Any]:
        """The configuration of the model; the offset of steps counts only with leading spacing."""
        if self.identity is None or not self.identity.config:
            return {}
        config = dict(self.identity.config)
        if self.task.sampling.timestep_spacing != "leading":
            config["scheduler"] = {name: v for name, v in config["scheduler"].items() if name != "steps_offset"}
        return {MODEL_CONFIG: config}

    def continues(self, recorded: Mapping[str, Any]) -> bool:
        """Return whether `recorded` are settings of an earlier version that did not record the model's configuration.

        Earlier versions also hashed copies of the weights that are not loaded.
        """
        if MODEL_CONFIG in recorded or self.identity is None:
            return False
        ours = json.loads(json.dumps({name: value for name, value in self.settings.items() if name != MODEL_CONFIG}))
        different = {name for name in {*ours, *recorded} if ours.get(name) != recorded.get(name)}
        if different == {"weights_sha256"}:
            return recorded["weights_sha256"] == self.identity.hashed_by_earlier_versions()
        return not different

    def as_job(self) -> Job:
        """Return the job for `runner.run_job`."""
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
        return self.row_format.features(self._publish(output).rows_schema(), self.task.passthrough.names)

    def _flow(self, output: str, resources: Resources) -> Flow:
        model = self.model.with_device(None if resources.gpus_per_actor else "cpu", resources.actors_per_node)
        compute = ComputeRows(
            task=self.task,
            model=model.with_work(self._rows_per_actor(resources)),
            run_seed=int(self.provenance["seed"]),
            batch_size=self.batch_size,
        )
        published = partial(layout.is_published, output, extension=self.row_format.extension)
        read = ReadRows(task=self.task, source=self.source, published=published, gives_up=self.gives_up)
        return Flow(
            read=TimedRead(stage=read, job=self.job),
            model=TimedModel(stage=compute, job=self.job),
            publish=TimedPublish(stage=self._publish(output), job=self.job),
        )

    def _rows_per_actor(self, resources: Resources) -> int | None:
        """Return the number of rows that an actor will compute; None: unknown."""
        if resources.samples is None:
            return None
        return math.ceil(resources.samples / resources.actors) * self.task.rows_per_sample

    def _publish(self, output: str) -> PublishRows:
        return PublishRows(
            output=output,
            task=self.task,
            provenance=self.provenance,
            row_format=self.row_format,
            omit=self._columns_without(output),
        )

    def _columns_without(self, output: str) -> frozenset[str]:
        """Return the columns that the version that started this output lacked, judging by its first readable file."""
        for info in files.iter_files(uris.join(output, "data")):
            if not is_rows_file(info.uri, self.row_format.extension):
                continue
            try:
                return ADDED_COLUMNS - self.row_format.column_names(info.uri)
            except Exception as error:  # another run has removed it, or it is damaged: try the next one
                if not (isinstance(error, FileNotFoundError) or is_damage(error)):
                    raise
        return frozenset()

    def _finish(self, output: str, ok: int, bad: int) -> None:
        preview = write_preview(output, self.card.previews, self.row_format)
        names = list(self.provenance)
        card = card_text(self.card, self.settings, names, ok, bad, self.row_format, self._features(output), preview)
        publish_beside(output, "README.md", marked(card), is_our_text, say)
