"""What the jobs call, and the values that describe an engine.

Shapes: images are 8-bit RGB, upright, of any size; maps are those of `unicon.condition_kinds`, float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from unicon.conditions import Condition

Size = tuple[int, int]
"""(width, height) in pixels."""


class Made(NamedTuple):
    """The condition that an engine estimates or follows."""

    column: str
    """Its usual name, and the name of its column."""
    kind: str
    """Its kind, a key of `unicon.condition_kinds.CONDITION_KINDS`."""


class Target(NamedTuple):
    """Where an engine is loaded, and from where."""

    folder: Path | None
    """The folder of the weights; None for an engine without weights."""
    device: str
    dtype: str
    """Data type of weights and computation."""
    base: Path | None = None
    """The folder of the base model of an engine that makes images."""


class Estimator(Protocol):
    """What the task that estimates conditions calls; `unicon.UniCon` is one."""

    def adapter_kind(self, name: str) -> Condition:
        """Return how maps of a condition are encoded."""
        ...

    def working_size(self, size: Size, *, resolution_px: int | None = None) -> Size:
        """(width, height) at which an image of a size is processed; images of one working size share batches."""
        ...

    def estimate(
        self, images: Sequence[Image.Image], condition: Any, *, seeds: Sequence[int], num_views: int | None = None,
        options: Any = None,
    ) -> Sequence[Any]:  # fmt: skip
        """Return a map for each image in its size, or a dict of maps by name if `condition` is several names."""
        ...


class Synthesizer(Protocol):
    """What the task that makes images from conditions calls; `unicon.UniCon` is one."""

    def adapter_kind(self, name: str) -> Condition:
        """Return how maps of a condition are decoded."""
        ...

    def working_size(self, size: Size, *, resolution_px: int | None = None) -> Size:
        """(width, height) at which an image of a size is made; images of one working size share batches."""
        ...

    def synthesize(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *, seeds: Sequence[int],
        negative_prompts: Sequence[str] | None = None, weights: Mapping[str, float] | None = None,
        strength: float = 0.0, options: Any = None,
    ) -> Sequence[Any]:  # fmt: skip
        """Return an image for each prompt, in the size of its map, with the given conditions."""
        ...
