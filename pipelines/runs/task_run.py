"""Turns a task into the job that the runner runs, in the same way for every command with one model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.runs.row_run import PlaceableModel as PlaceableModel
from pipelines.runs.row_run import RowRun, TaskStage
from pipelines.stages.task import Task
from pipelines.tasks.model_identity import ModelIdentity
from unicon.options import SamplingOptions

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


@dataclass(frozen=True, kw_only=True)
class TaskRun(RowRun):
    """What the command line of a job with one model means, except for the inputs, the output and the machines."""

    task: SamplingTask
    model: PlaceableModel
    batch_size: int | None
    """See `ComputeRows`."""
    identity: ModelIdentity | None = None
    """The identity of the model, if there is one."""

    @property
    def stages(self) -> Sequence[TaskStage]:
        """The one model."""
        return [
            TaskStage(
                task=self.task,
                model=self.model,
                batch_size=self.batch_size,
                rows_per_sample=self.task.rows_per_sample,
            )
        ]

    @property
    def model_config(self) -> dict[str, Any]:
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
