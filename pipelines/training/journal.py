"""What a training tells: log.jsonl, validation.jsonl, pictures, and the same for TensorBoard and Weights & Biases.

Everything is published to the work folder, at any URI, before the checkpoint of its step. So a training that is killed
and goes on replaces the lines after its checkpoint and loses none before it. The events for TensorBoard are one file
between two checkpoints, named by its first step, for the same reason.

Tested in tests/pipelines/training/test_journal.py.
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pipelines import storage
from pipelines.storage.store import FILES, Store
from pipelines.training.checkpoints import FOLDER

LOG, VALIDATION = "log.jsonl", "validation.jsonl"
TENSORBOARD = "tensorboard"
"""Folder in the work folder for the events for TensorBoard."""


class Sink(Protocol):
    """Where values and pictures go beside the log."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Receive values after `step` steps."""
        ...

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Receive a picture after `step` steps."""
        ...

    def publish(self) -> None:
        """Make everything durable."""
        ...


@dataclass(kw_only=True)
class Journal:
    """The log of a training; lines after `first_step` of an earlier run are dropped."""

    work: str
    """URI of the work folder."""
    first_step: int = 0
    """The step of the checkpoint from which the training goes on."""
    sinks: tuple[Sink, ...] = ()
    store: Store = FILES
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """File -> its lines."""

    def __post_init__(self) -> None:
        self.lines = {name: self._kept(name) for name in (LOG, VALIDATION)}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the losses of a step."""
        self.lines[LOG].append({"step": step, **_finite(values)})
        for sink in self.sinks:
            sink.scalars(step, {f"train/{name}": value for name, value in values.items()})

    def validation(self, step: int, values: Mapping[str, float], pictures: Mapping[str, Image.Image]) -> None:
        """Log the accuracy on held-out rows, and publish a picture of each adapter."""
        self.lines[VALIDATION].append({"step": step, **_finite(values)})
        for sink in self.sinks:
            sink.scalars(step, {f"validation/{name}": value for name, value in values.items()})
        for name, picture in pictures.items():
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            suffix = f"-{name}" if len(pictures) > 1 else ""
            self.store.publish(self._uri(f"validation-{step:06d}{suffix}.png"), buffer.getvalue())
            for sink in self.sinks:
                sink.picture(step, f"validation/{name}", picture)

    def publish(self) -> None:
        """Make everything durable that was logged so far."""
        for name, lines in self.lines.items():
            if lines:
                text = "".join(json.dumps(line) + "\n" for line in lines)
                self.store.publish(self._uri(name), text.encode())
        for sink in self.sinks:
            sink.publish()

    def _kept(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of an earlier run that belong to its checkpoint."""
        try:
            content = self.store.read_bytes(self._uri(name))
        except FileNotFoundError:
            return []
        lines = [json.loads(line) for line in content.decode().splitlines()]
        return [line for line in lines if line["step"] <= self.first_step]

    def _uri(self, name: str) -> str:
        return storage.join(self.work, FOLDER, name)


class TensorBoard:
    """Events for TensorBoard in the work folder: one file for the steps between two checkpoints."""

    def __init__(self, work: str, first_step: int, store: Store = FILES) -> None:
        self.folder, self.next_step, self.store = storage.join(work, TENSORBOARD), first_step, store
        self._open()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._last_step = step

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """See `Sink`."""
        self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._last_step = step

    def publish(self) -> None:
        """See `Sink`."""
        self._writer.close()
        with self._local:
            if self._last_step > self.next_step:
                (file,) = Path(self._local.name).iterdir()
                name = f"events.out.tfevents.{self.next_step:010d}"
                self.store.publish(storage.join(self.folder, name), file.read_bytes())
                self.next_step = self._last_step
        self._open()

    def _open(self) -> None:
        from tensorboardX import SummaryWriter

        self._local = TemporaryDirectory()
        self._writer = SummaryWriter(self._local.name)
        self._last_step = self.next_step


class WeightsAndBiases:
    """A run in a project of Weights & Biases, which goes on after an interruption."""

    def __init__(self, project: str, work: str) -> None:
        import wandb  # type: ignore[reportMissingImports]  # not a dependency

        name = work.rstrip("/").rsplit("/", 1)[-1]
        self._run = wandb.init(project=project, name=name, id=storage.short_hash(work), resume="allow")
        self._image = wandb.Image

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """See `Sink`."""
        self._run.log({name: self._image(image)}, step=step)

    def publish(self) -> None:
        """See `Sink`: nothing, since the library sends by itself."""


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values that JSON can hold."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
