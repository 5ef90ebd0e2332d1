"""The stages, timed.

The measurements travel with the chunk to its receipt, in the first row of a column that the other stages do not see.
The record of the run takes them from the receipt. They are also added to the metrics at once.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.engine import blocks, metrics
from pipelines.engine.attempts import Attempt
from pipelines.samples import Chunk
from pipelines.stages.compute import BlockModel, ComputeRows

MEASURED = "measured"
"""The column: a JSON object with `seconds` by stage, `device_s`, `batch_size`, and the `model` of the actor. The last
three are in `engines`, by stage, if the job has several models."""


@dataclass(frozen=True, kw_only=True)
class TimedRead:
    """The first stage."""

    stage: Callable[[Chunk, Attempt], pa.Table]
    job: str

    def __call__(self, chunk: Chunk, attempt: Attempt) -> pa.Table:
        started = time.monotonic()
        block = self.stage(chunk, attempt)
        elapsed_s = time.monotonic() - started
        metrics.add("unicon_seconds", elapsed_s, self.job, "read")
        return _with_measured(block, {"seconds": {"read": elapsed_s}})


@dataclass(frozen=True, kw_only=True)
class TimedModel:
    """The description of the stage of a model."""

    stage: ComputeRows
    job: str

    def build(self) -> "TimedActor":
        """Load the model."""
        return TimedActor(self.stage.build(), self.job)


class TimedActor:
    """The stage in its actor. Two chunks may overlap: the seconds of a chunk include waiting for the device."""

    def __init__(self, model: BlockModel, job: str) -> None:
        self.model = model
        self.job = job
        self.last = time.monotonic(), 0.0
        """When the last chunk ended, and the seconds in which the device had worked until then."""

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt) -> pa.Table:
        started = time.monotonic()
        measured = _measured(block)
        result, work = self.model.compute(chunk, block, attempt)
        ended, busy_s = now = time.monotonic(), self.model.actor.queue.busy_s
        (last_ended, last_busy_s), self.last = self.last, now
        report, stage = self._report(), self.model.stage
        metrics.add("unicon_seconds", ended - started, self.job, stage)
        metrics.show("unicon_batch_size", work.largest_batch, self.job, stage)
        metrics.show("unicon_model_busy_share", (busy_s - last_busy_s) / (ended - last_ended), self.job, stage)
        if report["rows_s"]:
            metrics.show("unicon_model_rows_per_s", report["rows"] / report["rows_s"], self.job, stage)
        used: dict[str, Any] = {"device_s": work.device_s, "batch_size": work.largest_batch, "model": report}
        if stage != blocks.MODEL:
            used = {"engines": {**measured.get("engines", {}), stage: used}}
        return _with_measured(result, {**measured, "seconds": {**measured["seconds"], stage: ended - started}, **used})

    def _report(self) -> dict[str, Any]:
        """The report of `ModelTime`, and with `compile` what a model that may be compiled says about that."""
        report, compilation = self.model.actor.queue.time.report(), getattr(self.model.actor.model, "compilation", None)
        return report if compilation is None else {**report, "compile": compilation.describe()}


@dataclass(frozen=True, kw_only=True)
class TimedPublish:
    """The last stage.

    Its receipt has `seconds` by stage, `device_s` (seconds in which the device worked for the chunk), `batch_size`,
    which is 0 if the model had no work, and `model`, the report of the actor so far; these three in `engines`, by
    stage, if the job has several models.
    """

    stage: Callable[[Chunk, pa.Table, Attempt], Mapping[str, Any]]
    job: str

    def __call__(self, chunk: Chunk, block: pa.Table, attempt: Attempt) -> dict[str, Any]:
        started = time.monotonic()
        measured = _measured(block)
        receipt = self.stage(chunk, block.drop_columns([MEASURED]), attempt)
        elapsed_s = time.monotonic() - started
        metrics.add("unicon_seconds", elapsed_s, self.job, "publish")
        metrics.add("unicon_samples", receipt["ok"], self.job, "publish")
        for reason, count in receipt["reasons"].items():
            metrics.add("unicon_errors", count, self.job, reason.split(":")[0])
        return {**receipt, **measured, "seconds": {**measured["seconds"], "publish": elapsed_s}}


def _with_measured(block: pa.Table, measured: Mapping[str, Any]) -> pa.Table:
    values = [json.dumps(measured), *[None] * (block.num_rows - 1)]
    return blocks.set_columns(block, {MEASURED: pa.array(values, pa.string())})


def _measured(block: pa.Table) -> dict[str, Any]:
    return json.loads(block.column(MEASURED)[0].as_py())
