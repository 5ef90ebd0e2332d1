"""Training in one process on a loss that draws its own batches, with a log in a folder.

All random choices of a step come from a generator seeded by (seed, step). A run that is killed and started again takes
the same steps as one that was never interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from unicon.training.checkpoints import FolderCheckpoints
from unicon.training.fit_config import FitConfig
from unicon.training.trainer import Trainer

Loss = Callable[[torch.Generator], dict[str, Tensor]]
"""Draws one batch with the generator and returns losses by name. The one named `loss` is minimized."""


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of all random choices of a step, on the CPU."""
    return torch.Generator().manual_seed((seed << 32) + step)


def autocast(config: FitConfig, device: torch.device) -> torch.autocast:
    """The context in which losses are computed."""
    dtype = getattr(torch, config.autocast_dtype or "float32")
    return torch.autocast(device.type, dtype, enabled=config.autocast_dtype is not None)


class LossGradients:
    """The gradients of a `Loss`; see `StepGradients`."""

    def __init__(self, loss: Loss, config: FitConfig, device: torch.device) -> None:
        self.loss, self.config, self.device = loss, config, device

    def __call__(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
        """See `StepGradients`."""
        with autocast(self.config, self.device):
            losses = self.loss(step_generator(self.config.seed, step))
        scaler.scale(losses["loss"]).backward()
        return losses

    def failure(self, step: int) -> None:
        """See `StepGradients`. The step is left out, since nothing is known about its rows."""


class FolderLog:
    """Prints metrics, and appends them to log.jsonl in a folder."""

    def __init__(self, folder: Path, pairs_a_step: float | None = None) -> None:
        self.folder, self.pairs_a_step = folder, pairs_a_step

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Write the metrics of a step."""
        record = {"step": step, **values}
        if self.pairs_a_step is not None:
            record["pairs_a_second"] = round(self.pairs_a_step / max(values["seconds_a_step"], 1e-4), 1)
        line = json.dumps(record)
        print(line, flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")


def fit(
    parameters: dict[str, nn.Parameter],
    loss: Loss,
    config: FitConfig,
    folder: Path,
    on_checkpoint: Callable[[int], None] = lambda step: None,
    pairs_a_step: float | None = None,
) -> None:
    """Train until `config.steps`, resuming from `folder`. On return the parameters hold their EMA.

    Args:
        parameters: The parameters to train, by stable names.
        loss: The losses of one batch, see `Loss`.
        config: How to train.
        folder: Receives `state.pt` (everything needed to resume) and `log.jsonl`.
        on_checkpoint: Called with the step while the parameters hold their EMA, to validate and save.
        pairs_a_step: Mean number of pairs in a step, of which the log then tells how many are trained per second.
    """
    trainer = Trainer(parameters, config, FolderCheckpoints(folder))
    trainer.run(LossGradients(loss, config, trainer.device), FolderLog(folder, pairs_a_step), on_checkpoint)
