"""What an engine is, from three sides: its family, the model that a family loads, and what the jobs call.

Shapes: images are 8-bit RGB, upright, of any size; maps are those of `unicon.condition_kinds`, float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from engines.options import EngineOption

if TYPE_CHECKING:
    from engines.spec import EngineSpec
    from unicon.conditions import Condition

Size = tuple[int, int]
"""(width, height) in pixels."""


class Made(NamedTuple):
    """The condition that an engine estimates."""

    column: str
    """Its usual name, and the name of its column."""
    kind: str
    """Its kind, a key of `unicon.condition_kinds.CONDITION_KINDS`."""


class Family(Protocol):
    """Engines that are loaded in the same way: one file of this package, and one entry of `families.py`.

    Its attributes and methods import neither torch nor the package that they describe, except for `load`.
    """

    name: str
    """What stands before the colon."""
    place: str
    """What stands after the colon, for people: NAME or DIR."""
    help: str
    """What it makes, in a few words."""
    package: str
    """The distribution whose version is recorded."""
    makes_images: bool
    """Whether it makes images that follow conditions, on a base model; else it estimates a condition of images."""
    has_dtype: bool
    """Whether the data type of weights and computation can be chosen."""

    def check(self, name: str) -> None:
        """Check the text after the colon. Raises ValueError."""
        ...

    def modules(self, name: str) -> Sequence[str]:
        """Return the modules that loading imports."""
        ...

    def options(self, name: str) -> Sequence[EngineOption]:
        """Return the options of an engine."""
        ...

    def weights(self, name: str, given: str | None) -> str | None:
        """Return where the weights are: a folder, URI or hub id; None for an engine without weights. ValueError."""
        ...

    def choose(self, name: str, names: Collection[str]) -> list[str]:
        """Choose the files to load among the paths of all files in the folder of the weights.

        Raises:
            FileNotFoundError: A file that is needed is absent.
            ValueError: The folder is something else.
        """
        ...

    def makes(self, spec: EngineSpec, folder: Path | None) -> Made | None:
        """Return what the engine estimates; None for an engine that makes images. Raises ValueError."""
        ...

    def load(self, spec: EngineSpec, folder: Path | None, device: str, dtype: str | None, base: Path | None) -> Any:
        """Load a `MapEngine`, or for one that makes images an `ImageEngine`."""
        ...


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
