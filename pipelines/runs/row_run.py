"""What a command with models means, as the job that the runner runs: reading, any number of models, publishing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipelines.dataset import layout
from pipelines.dataset.card import Card, card_text
from pipelines.dataset.failures import read_reasons
from pipelines.dataset.features import Features, load_options
from pipelines.dataset.funnel import funnel
from pipelines.dataset.ownership import is_our_text, marked, publish_beside
from pipelines.dataset.preview import write_preview
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.blocks import MODEL, Flow, ModelStage
from pipelines.engine.resources import Resources
from pipelines.errors import say
from pipelines.readers.shard_index import MeasuredShard
from pipelines.readers.sources import Source
from pipelines.runs.request import Job
from pipelines.samples import Chunk, is_rows_file
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.stages.task import TOKENS_CUT, ModelTask, RowTask
from pipelines.stages.timed import TimedModel, TimedPublish, TimedRead
from pipelines.storage import files, uris
from pipelines.storage.damage import is_damage
from pipelines.tasks.model_identity import REVISIONS

ADDED_COLUMNS = frozenset({TOKENS_CUT, "caption_note"})
"""Columns that version 0.2.0 did not write."""


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
class TaskStage:
    """A model of a job, and what it does with a row."""

    task: ModelTask
    model: PlaceableModel
    batch_size: int | None
    """See `ComputeRows`."""
    rows_per_sample: int = 1
    """Rows of micro-batches that the model processes for a sample, such as its views; a lower bound."""
    name: str = MODEL
    """See `ModelStage`."""

    def placed(self, resources: Resources, run_seed: int, needed_later: frozenset[str]) -> ComputeRows:
        """Return the description of the stage for actors with these resources."""
        model = self.model.with_device(None if resources.gpus_per_actor else "cpu", resources.actors_per_node)
        return ComputeRows(
            task=self.task,
            model=model.with_work(self._rows_per_actor(resources)),
            run_seed=run_seed,
            batch_size=self.batch_size,
            stage=self.name,
            needed_later=needed_later,
        )

    def _rows_per_actor(self, resources: Resources) -> int | None:
        """Return the number of rows that an actor will compute; None: unknown."""
        if resources.samples is None:
            return None
        return math.ceil(resources.samples / resources.actors) * self.rows_per_sample


@dataclass(frozen=True, kw_only=True)
class RowRun:
    """What a command line means, except for the inputs, the output and the machines."""

    job: str
    """Name of the job. It is part of the configuration: two jobs never share an output."""
    task: RowTask
    source: Source
    provenance: Mapping[str, str | int | float]
    """What made the rows; `seed` is the seed of the run."""
    other_settings: Mapping[str, Any]
    """Other settings that change the content of a row."""
    card: Card
    row_format: RowFormat = PARQUET
    gives_up: bool = False
    """See `ReadRows`."""

    @property
    def stages(self) -> Sequence[TaskStage]:
        """The models, in the order in which every row passes through them."""
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the content of a row, and the format of the output if it is not Parquet."""
        made_by = {name: value for name, value in self.provenance.items() if not name.endswith(REVISIONS)}
        settings = {"job": self.job, **made_by, **self.other_settings, **self.model_config}
        return settings if self.row_format is PARQUET else {**settings, "output_format": self.row_format.name}

    @property
    def model_config(self) -> dict[str, Any]:
        """The setting with the configuration of the model, if there is one."""
        return {}

    def continues(self, recorded: Mapping[str, Any]) -> bool:
        """Return whether `recorded` are settings of an earlier version that mean the same, with fewer entries."""
        return False

    def prepare(self, output: str, shards: Sequence[MeasuredShard], chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """See `Job.prepare`."""
        return chunks

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
            prepare=self.prepare,
        )

    def _features(self, output: str) -> Features:
        return self.row_format.features(self._publish(output).rows_schema(), self.task.passthrough.names)

    def _flow(self, output: str, resources: Resources) -> Flow:
        published = partial(layout.is_published, output, extension=self.row_format.extension)
        read = ReadRows(task=self.task, source=self.source, published=published, gives_up=self.gives_up)
        return Flow(
            read=TimedRead(stage=read, job=self.job),
            models=tuple(self._model_stages(resources)),
            publish=TimedPublish(stage=self._publish(output), job=self.job),
        )

    def _model_stages(self, resources: Resources) -> Sequence[ModelStage]:
        """Return the stages of the models. Each one drops the inputs that no later one needs."""
        stages, needed_later = [], frozenset()
        for stage in reversed(self.stages):
            placed = stage.placed(resources.of(stage.name), int(self.provenance["seed"]), needed_later)
            stages.append(ModelStage(name=stage.name, model=TimedModel(stage=placed, job=self.job)))
            needed_later |= {*stage.task.inputs.names}
        return stages[::-1]

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

    def _finish(self, output: str, finished: Sequence[layout.Version]) -> None:
        ok, bad, filtered = (sum(getattr(each, name) for each in finished) for name in ("ok", "bad", "filtered"))
        lines = funnel(ok, read_reasons(finished)) if filtered else ()
        preview = write_preview(output, self.card.previews, self.row_format)
        names, features = list(self.provenance), self._features(output)
        card = card_text(self.card, self.settings, names, ok, bad, self.row_format, features, preview, lines)
        publish_beside(output, "README.md", marked(card), is_our_text, say)
