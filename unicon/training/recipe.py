"""Every choice of a training of adapters. The defaults are those of the published recipe.

Source: arXiv 2410.11439, appendix A (rank 64, batch 16, 20 epochs, min-SNR 5, text dropout 0.1, independent timesteps).
Tested in tests/unicon/training/test_recipe.py.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unicon.adapters.config import AdapterConfig
from unicon.training.fit_config import FitConfig
from unicon.training.mirrors import can_mirror
from unicon.training.pair_rows import PairSampling
from unicon.training.single_step import SingleStepSampling
from unicon.training.views import Views

EPOCHS = 20
"""Epochs of the published recipe."""
LEARNING_RATE = 1e-4
KIND_STREAM = 1 << 20
"""Stream of the random numbers that choose the kind of a step."""


@dataclass(frozen=True, kw_only=True)
class TrainedAdapter:
    """An adapter to train.

    Raises:
        ValueError: The share is not positive.
    """

    config: AdapterConfig
    """Name, kind of condition, rank, alpha, projection, trigger text, and so on."""
    share: float = 1.0
    """Share of the steps on pairs that train this adapter, relative to those of the others."""
    start_from: Path | None = None
    """Adapter whose weights the training starts from: a file, or a folder in the official layout. It has the rank and
    shape of `config`. For None, the adapter is new."""

    def __post_init__(self) -> None:
        if not 0 < self.share < math.inf:
            raise ValueError(f"The share of an adapter is positive; got {self.share} for {self.config.name!r}.")


class StepKind(NamedTuple):
    """What a step trains."""

    single_step: bool
    """Whether it trains estimates in one step through the decoder. If not, it trains pairs of one adapter."""
    adapters: tuple[str, ...]
    """Names of the adapters."""


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """Every choice of a training of adapters.

    Raises:
        ValueError: A value is out of its range, or values contradict each other.
    """

    adapters: tuple[TrainedAdapter, ...]
    """The adapters, which are trained together."""
    fit: FitConfig
    sampling: PairSampling = PairSampling()
    """How pairs are sampled. `batch_size` is that of all workers together."""
    single_step: SingleStepSampling = SingleStepSampling()
    """How estimates in one step are sampled. The batch is that of `sampling`."""
    single_step_share: float = 0.0
    """Share of the steps that train estimates in one step (`unicon.training.single_step`), in [0, 1]."""
    single_step_steps: int = 0
    """Number of steps at the end that all train estimates in one step."""
    resolution_px: int | None = None
    """Side of the square whose area the images have. For None, the model's own."""
    aspect_buckets: bool = False
    """See `Views`."""
    random_crop: bool = True
    """See `Views`."""
    flip_probability: float = 0.5
    """See `Views`. Nothing is mirrored unless mirrored maps of all kinds are known."""
    gradient_checkpointing: bool = False
    """Whether to save memory at the cost of time."""
    gradient_accumulation: int = 1
    """Number of parts in which a worker processes its rows of a step, one after the other, to save memory. The batch
    and the result stay the same."""
    validate_every: int | None = None
    """Steps between validations. For None, `fit.checkpoint_every`."""

    def __post_init__(self) -> None:
        names = [adapter.config.name for adapter in self.adapters]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"A recipe has at least one adapter, with different names; got {names}.")
        if not 0 <= self.single_step_share <= 1:
            raise ValueError(f"single_step_share lies in [0, 1]; got {self.single_step_share}. 0.5 is usual.")
        if not 0 <= self.single_step_steps <= self.fit.steps:
            raise ValueError(
                f"single_step_steps lies between 0 and the {self.fit.steps} steps; got {self.single_step_steps}."
            )
        if self.gradient_accumulation < 1 or (self.validate_every is not None and self.validate_every < 1):
            raise ValueError(
                f"gradient_accumulation and validate_every are at least 1; got {self.gradient_accumulation} and "
                f"{self.validate_every}."
            )

    @property
    def trains_single_step(self) -> bool:
        """Whether any step trains estimates in one step. The adapters then recommend one step."""
        return self.single_step_share > 0 or self.single_step_steps > 0

    @property
    def configs(self) -> dict[str, AdapterConfig]:
        """Configurations by name, with what the training makes the adapters recommend."""
        changes = {"single_step": True, "estimation_steps": 1} if self.trains_single_step else {}
        return {each.config.name: replace(each.config, **changes) for each in self.adapters}

    @property
    def kinds(self) -> dict[str, str]:
        """Adapter -> its kind of condition."""
        return {each.config.name: each.config.kind for each in self.adapters}

    def step_kind(self, step: int) -> StepKind:
        """What a step trains: a function of its number and the seed."""
        mode, which = np.random.default_rng((self.fit.seed, KIND_STREAM, step)).random(2).tolist()
        names = tuple(each.config.name for each in self.adapters)
        if mode < self.single_step_share or step >= self.fit.steps - self.single_step_steps:
            return StepKind(True, names)
        shares = np.cumsum([each.share for each in self.adapters])
        return StepKind(False, (names[int(np.searchsorted(shares, which * shares[-1], side="right"))],))

    def make_views(self, native_px: int, multiple: int) -> Views:
        """The views for a model whose own images have `native_px`, with sides that are multiples of `multiple`."""
        return Views(
            resolution_px=self.resolution_px or native_px,
            multiple=multiple,
            aspect_buckets=self.aspect_buckets,
            random_crop=self.random_crop,
            flip_probability=self.flip_probability if all(map(can_mirror, self.kinds.values())) else 0.0,
        )

    def settings(self) -> dict[str, Any]:
        """Plain values of all settings that a training keeps when it goes on, other than those of `fit`."""
        adapters = [{**asdict(each.config), "share": each.share} for each in self.adapters]
        return {
            "adapters": adapters,
            "sampling": asdict(self.sampling),
            "single_step": {**asdict(self.single_step), "batch_size": None},
            "single_step_share": self.single_step_share,
            "single_step_steps": self.single_step_steps,
            "resolution_px": self.resolution_px,
            "aspect_buckets": self.aspect_buckets,
            "random_crop": self.random_crop,
            "flip_probability": self.flip_probability,
        }


def epochs_to_steps(rows: int, batch_size: int, epochs: float = EPOCHS) -> int:
    """Number of optimizer steps in which `rows` rows are each seen `epochs` times."""
    return max(1, math.ceil(epochs * rows / batch_size))
