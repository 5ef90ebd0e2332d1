"""Where a training keeps its state, so that it goes on after an interruption.

A state does not depend on the number of workers: they all have the same.

Tested in tests/unicon/training/test_trainer.py.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import torch

STATE_FILE = "state.pt"


class Checkpoints(Protocol):
    """A place for the latest state of a training. `str` of it names the place in messages."""

    def load(self) -> bytes | None:
        """The latest state; None if there is none. Every worker calls it."""
        ...

    def save(self, step: int, content: bytes) -> None:
        """Replace the state by that after `step` steps, atomically. Only the first worker calls it."""
        ...


class FolderCheckpoints:
    """The state as the file state.pt of a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder / STATE_FILE)

    def load(self) -> bytes | None:
        """See `Checkpoints`."""
        path = self.folder / STATE_FILE
        return path.read_bytes() if path.exists() else None

    def save(self, step: int, content: bytes) -> None:
        """See `Checkpoints`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "state.tmp"
        temporary.write_bytes(content)
        temporary.replace(self.folder / STATE_FILE)


def serialize(state: dict[str, Any]) -> bytes:
    """The content of a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def deserialize(content: bytes, device: torch.device) -> dict[str, Any]:
    """The state in a checkpoint, with its tensors on a device. Only tensors and plain values are read."""
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
