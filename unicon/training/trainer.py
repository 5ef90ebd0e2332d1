"""The training loop: gradients of a step, clipping, optimizer, average of the weights, metrics, checkpoints.

The loop does not know where gradients come from (`StepGradients`). All random choices of a step follow from its number,
so a training that is stopped and goes on takes the same steps as one that was never interrupted, on the same or another
number of workers.

Tested in tests/unicon/training/test_trainer.py and tests/unicon/training/test_fit.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unicon.training.checkpoints import Checkpoints, deserialize, serialize
from unicon.training.fit_config import FREE, FitConfig
from unicon.training.settings import refuse_other_settings
from unicon.training.workers import Workers

OnMetrics = Callable[[int, dict[str, float]], None]
"""Receives the number of steps taken, and values by name."""
OnStep = Callable[[int], None]
"""Receives the number of steps taken."""


class ResumeError(ValueError):
    """A checkpoint of a training with other settings."""


class NonFiniteLossError(ValueError):
    """A loss or a gradient that is not finite."""

    def __init__(self, step: int, keys: Sequence[str], are_found: bool) -> None:
        """Describe the step.

        Args:
            step: Its number, from 0.
            keys: Keys of the rows that cause it, or of all rows of the step.
            are_found: Whether these rows alone give such a loss or gradient.
        """
        self.step, self.keys, self.are_found = step, tuple(keys), are_found
        whose = "of these rows" if are_found else "of these rows together, though of none alone,"
        shown = ", ".join(repr(key) for key in self.keys[:8]) + (", ..." if len(self.keys) > 8 else "")
        super().__init__(
            f"Losses and gradients are finite; those {whose} are not in step {step}: {shown}. Look at the rows and "
            "remove them or give them weight 0, or lower the learning rate, or train in bfloat16 or float32."
        )


class StepGradients(Protocol):
    """Computes the gradients of a step."""

    def __call__(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
        """Add the gradients of a step, scaled by `scaler`, to the parameters, and return the losses; `loss` is one."""
        ...

    def failure(self, step: int) -> Exception | None:
        """What to raise after a step with a loss or gradient that is not finite; None to leave the step out."""
        ...


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


class Trainer:
    """Parameters in training, with everything that a checkpoint holds."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        config: FitConfig,
        checkpoints: Checkpoints,
        workers: Workers | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare a training, and restore the state of its checkpoint if there is one.

        Args:
            parameters: The parameters to train, by stable names.
            config: How to train.
            checkpoints: Where the state is kept.
            workers: The processes that train together.
            settings: Further settings, plain values, that a checkpoint must have been written with.

        Raises:
            ResumeError: The checkpoint belongs to another training.
        """
        self.parameters, self.config, self.checkpoints = parameters, config, checkpoints
        self.workers, self.settings = workers or Workers(), dict(settings or {})
        self.device = next(iter(parameters.values())).device
        self.optimizer = config.make_optimizer(parameters)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.autocast_dtype == "float16")
        self.ema = Ema(parameters, config.ema_decay)
        self.step = self._restore()
        """Steps that have been taken."""

    def run(
        self,
        gradients: StepGradients,
        on_metrics: OnMetrics = lambda step, values: None,
        on_checkpoint: OnStep = lambda step: None,
        wants_checkpoint: Callable[[], bool] | None = None,
        on_validation: OnStep | None = None,
        validate_every: int | None = None,
    ) -> None:
        """Train until `config.steps`. On return the parameters hold their EMA.

        Args:
            gradients: The gradients of a step.
            on_metrics: Called by the first worker every `config.log_every` steps.
            on_checkpoint: Called by every worker after each checkpoint, while the parameters hold their EMA.
            wants_checkpoint: Asked by every worker after each step; if any says yes, there is a checkpoint.
            on_validation: Called by the first worker every `validate_every` steps and at the end, while the parameters
                hold their EMA. The other workers wait.
            validate_every: Steps between validations. For None, those between checkpoints.

        Raises:
            Exception: What `gradients.failure` returns for a step with a loss or gradient that is not finite.
        """
        began, since = time.perf_counter(), self.step
        while self.step < self.config.steps:
            values = self.take_step(gradients)
            if self.step % self.config.log_every == 0 and self.workers.is_first:
                seconds = (time.perf_counter() - began) / (self.step - since)
                on_metrics(self.step, {**_plain(values), "seconds_a_step": round(seconds, 4)})
            is_wanted = wants_checkpoint is not None and self._any(wants_checkpoint())
            if is_wanted or self._is_due(self.config.checkpoint_every):
                self._save()
                self._averaged(on_checkpoint)
            if on_validation and self.workers.is_first and self._is_due(validate_every or self.config.checkpoint_every):
                self._averaged(on_validation)
        self.ema.swap(self.parameters)

    def _is_due(self, every: int) -> bool:
        """Whether something is due that happens every `every` steps and at the end."""
        return self.step % every == 0 or self.step == self.config.steps

    def _averaged(self, call: OnStep) -> None:
        """Call something while the parameters hold their EMA."""
        self.ema.swap(self.parameters)
        call(self.step)
        self.ema.swap(self.parameters)

    def take_step(self, gradients: StepGradients) -> dict[str, Tensor]:
        """Take the next step and return its losses, the norm of the gradient, and the learning rate."""
        factor = self.config.learning_rate_factor(self.step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        self.optimizer.zero_grad(set_to_none=True)
        losses = gradients(self.step, self.scaler)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        if torch.isfinite(norm + losses["loss"].detach()):
            self.scaler.step(self.optimizer)
        elif not self._overflowed(losses["loss"]) and (error := gradients.failure(self.step)) is not None:
            raise error
        self.scaler.update()
        self.ema.update(self.parameters, self.step)
        self.step += 1
        return {**losses, "grad_norm": norm, "learning_rate": torch.tensor(self.peaks[0] * factor)}

    def _overflowed(self, loss: Tensor) -> bool:
        """Whether a gradient overflowed because its loss was scaled for float16. The scale is then halved."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1 and bool(torch.isfinite(loss))

    def _any(self, is_wanted: bool) -> bool:
        """Whether any worker wants something."""
        wanted = torch.tensor([float(is_wanted)], device=self.device)
        self.workers.add([wanted])
        return bool(wanted.item())

    def _save(self) -> None:
        if not self.workers.is_first:
            return
        state = {
            "step": self.step,
            "config": {**asdict(self.config), **self.settings},
            "parameters": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "ema": self.ema.shadow,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        self.checkpoints.save(self.step, serialize(state))

    def _restore(self) -> int:
        """Load the latest state in place and return its step; 0 if there is none."""
        content = self.checkpoints.load()
        if content is None:
            return 0
        state = deserialize(content, self.device)
        self._check(state)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
                self.ema.shadow[name].copy_(state["ema"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        return int(state["step"])

    def _check(self, state: dict[str, Any]) -> None:
        """Raise ResumeError for a state of other settings. Those of earlier versions do not contain all settings."""
        if state["parameters"].keys() != self.parameters.keys():
            raise ResumeError(
                f"a checkpoint must hold the parameters being trained; that of {self.checkpoints} was written by "
                "another recipe: delete it or train into another folder"
            )
        if int(state["step"]) > self.config.steps:
            raise ResumeError(
                f"a training resumes from its checkpoint; that of {self.checkpoints} is at step {state['step']}, "
                f"beyond the {self.config.steps} steps asked for: give at least as many, or train into another folder"
            )
        now = {**asdict(self.config), **self.settings}
        try:
            refuse_other_settings(
                self.checkpoints, dict(state.get("config", {})), {name: now[name] for name in now if name not in FREE}
            )
        except ValueError as error:
            raise ResumeError(str(error)) from error


def _plain(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The values as numbers with five significant digits."""
    return {name: float(f"{value.item():.5g}") for name, value in values.items()}
