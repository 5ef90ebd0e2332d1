"""How a training loop trains: steps, learning rates, averages, precision, and when it reports.

Tested in tests/unicon/training/test_fit.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from unicon.training.optimizer import MatrixOptimizer

FREE = frozenset({"warmup_steps", "checkpoint_every", "log_every", "autocast_dtype"})
"""Fields of `FitConfig` that may change when a training is resumed, since they follow from the steps or the machine."""


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
