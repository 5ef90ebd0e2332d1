"""The training loop: AdamW or Muon, warm-up and cosine decay, EMA, mixed precision, exact resume.

All random choices of a step come from a generator seeded by (seed, step). A run that is killed and started again takes
the same steps as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unicon.training.optimizer import MatrixOptimizer
from unicon.training.settings import refuse_other_settings

Loss = Callable[[torch.Generator], dict[str, Tensor]]
"""Draws one batch with the generator and returns losses by name. The one named `loss` is minimized."""

FREE = frozenset({"warmup_steps", "checkpoint_every", "log_every", "autocast_dtype"})
"""Fields of `FitConfig` that may change when a training is resumed, since they follow from the steps or the machine."""


class ResumeError(ValueError):
    """A checkpoint of a training with other settings."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train.

    Raises:
        ValueError: A value is out of its range, or values contradict each other.
    """

    steps: int
    """Total number of optimizer steps."""
    learning_rate: float
    """Peak learning rate, reached after the warm-up."""
    matrix_learning_rate: float | None = None
    """Peak learning rate of matrices and kernels, which are then trained by Muon. For None, AdamW trains everything."""
    warmup_steps: int = 100
    final_learning_rate_fraction: float = 0.05
    """Where the cosine decay ends, as a fraction of the peak."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights. It warms up with (1 + step) / (10 + step)."""
    autocast_dtype: str | None = None
    """`bfloat16` or `float16` (with loss scaling) for mixed precision, None for full precision."""
    checkpoint_every: int = 200
    """Steps between checkpoints. Each also calls `on_checkpoint`."""
    log_every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0:
            raise ValueError(f"steps and learning_rate must be positive, got {self.steps} and {self.learning_rate}")
        if self.matrix_learning_rate is not None and self.weight_decay:
            raise ValueError(
                "Muon trains without weight decay here; set weight_decay or matrix_learning_rate, not both"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if self.autocast_dtype not in (None, "bfloat16", "float16"):
            raise ValueError(f"autocast_dtype must be bfloat16, float16 or None, got {self.autocast_dtype!r}")

    def learning_rate_factor(self, step: int) -> float:
        """The factor of the peak learning rates at a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        floor = self.final_learning_rate_fraction
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def make_optimizer(self, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer, with its groups at their peak learning rates."""
        if self.matrix_learning_rate is not None:
            return MatrixOptimizer(parameters, matrix_lr=self.matrix_learning_rate, lr=self.learning_rate)
        fused = next(iter(parameters.values())).device.type == "cuda"
        return torch.optim.AdamW(
            parameters.values(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay, fused=fused
        )


class Ema:
    """Exponential moving average of named parameters."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter], step: int) -> None:
        """Update the average with the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        shadows = [self.shadow[name] for name in parameters]
        torch._foreach_lerp_(shadows, [p.detach() for p in parameters.values()], 1 - decay)

    @torch.no_grad()
    def swap(self, parameters: dict[str, nn.Parameter]) -> None:
        """Exchange the averaged and the live weights. Calling it twice restores both."""
        for name, parameter in parameters.items():
            live = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(live)


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
    folder.mkdir(parents=True, exist_ok=True)
    device = next(iter(parameters.values())).device
    optimizer = config.make_optimizer(parameters)
    peaks = [group["lr"] for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device.type, enabled=config.autocast_dtype == "float16")
    ema = Ema(parameters, config.ema_decay)
    start = _restore(folder, config, parameters, optimizer, scaler, ema)
    began, since = time.perf_counter(), start
    for step in range(start, config.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * config.learning_rate_factor(step)
        losses = take_step(parameters, loss, config, optimizer, scaler, step, device)
        ema.update(parameters, step)
        if (step + 1) % config.log_every == 0:
            _log(folder, step + 1, losses, (time.perf_counter() - began) / (step + 1 - since), pairs_a_step)
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            _save(folder, step + 1, config, parameters, optimizer, scaler, ema)
            ema.swap(parameters)
            on_checkpoint(step + 1)
            ema.swap(parameters)
    ema.swap(parameters)


def take_step(
    parameters: dict[str, nn.Parameter],
    loss: Loss,
    config: FitConfig,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Take the optimizer step of that number and return its losses."""
    generator = torch.Generator().manual_seed((config.seed << 32) + step)
    optimizer.zero_grad(set_to_none=True)
    dtype = getattr(torch, config.autocast_dtype or "float32")
    with torch.autocast(device.type, dtype, enabled=config.autocast_dtype is not None):
        losses = loss(generator)
    scaler.scale(losses["loss"]).backward()
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_grad_norm)
    if torch.isfinite(norm):
        scaler.step(optimizer)
    scaler.update()
    return {**losses, "grad_norm": norm}


def _log(folder: Path, step: int, losses: dict[str, Tensor], seconds_a_step: float, pairs_a_step: float | None) -> None:
    record = {"step": step, **{name: round(value.item(), 5) for name, value in losses.items()}}
    record["seconds_a_step"] = round(seconds_a_step, 3)
    if pairs_a_step is not None:
        record["pairs_a_second"] = round(pairs_a_step / seconds_a_step, 1)
    line = json.dumps(record)
    print(line, flush=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")


def _save(
    folder: Path,
    step: int,
    config: FitConfig,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    ema: Ema,
) -> None:
    state = {
        "step": step,
        "config": asdict(config),
        "parameters": {name: parameter.detach() for name, parameter in parameters.items()},
        "ema": ema.shadow,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    temporary = folder / "state.tmp"
    torch.save(state, temporary)
    temporary.replace(folder / "state.pt")


def _restore(
    folder: Path,
    config: FitConfig,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    ema: Ema,
) -> int:
    """Load the last checkpoint in place and return its step; 0 if there is none."""
    path = folder / "state.pt"
    if not path.exists():
        return 0
    device = next(iter(parameters.values())).device
    state = torch.load(path, map_location=device, weights_only=True)
    if state["parameters"].keys() != parameters.keys():
        raise ResumeError(
            f"a checkpoint must hold the parameters being trained; {path} was written by another recipe: "
            "delete it or train into another folder"
        )
    _check_config(path, state, config)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state["parameters"][name])
            ema.shadow[name].copy_(state["ema"][name])
    optimizer.load_state_dict(state["optimizer"])
    if state.get("scaler"):
        scaler.load_state_dict(state["scaler"])
    return int(state["step"])


def _check_config(path: Path, state: dict[str, Any], config: FitConfig) -> None:
    """Raise ResumeError for a checkpoint of other settings. Those of earlier versions do not contain all settings."""
    before, now = dict(state.get("config", {})), asdict(config)
    if int(state["step"]) > config.steps:
        raise ResumeError(
            f"a training resumes from its checkpoint; {path} is at step {state['step']}, beyond the {config.steps} "
            "steps asked for: give at least as many, or train into another folder"
        )
    try:
        refuse_other_settings(path.parent, before, {name: now[name] for name in now if name not in FREE})
    except ValueError as error:
        raise ResumeError(str(error)) from error
