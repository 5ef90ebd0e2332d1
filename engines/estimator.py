"""The model of an engine that estimates a condition, and its adaptation to the interface of the jobs.

Tested in tests/engines/test_estimator.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from engines.interfaces import Size
from unicon.conditions import CONDITIONS, Condition
from unicon.working_sizes import MAX_ASPECT

Run = Callable[[Callable[[], Any]], Any]


class MapEngine:
    """A model that estimates one condition. A subclass defines `compute`, and what else differs.

    The map of an image depends on the image and its seed alone. The three steps of a batch may run in different
    threads: `prepare` and `finish` use the CPU, while `compute` of another batch uses the device.
    """

    def working_size(self, size: Size) -> Size:
        """(width, height) at which an image of `size` is processed; images of one working size share batches."""
        return size

    def prepare(self, images: Sequence[Image.Image]) -> Any:
        """Return the input of `compute` for images of one working size."""
        return images

    def compute(self, prepared: Any, seeds: Sequence[int]) -> Any:
        """Return the input of `finish`, on the CPU."""
        raise NotImplementedError

    def finish(self, computed: Any, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """Return a map for each image, in its size."""
        return list(computed)


@dataclass(frozen=True, kw_only=True)
class EngineEstimator:
    """A loaded engine as the jobs call it, see `engines.interfaces.Estimator`."""

    engine: MapEngine
    kind: str
    """Kind of the condition."""
    device_name: str = "cpu"
    """Name of the kind of device, such as "NVIDIA H200", or "cpu"."""
    dtype: str = "float32"
    weights_sha256: str = ""
    run: Run | None = None
    """Runs a call on the device in turns with others; see `in_turns`."""

    def in_turns(self, run: Run) -> EngineEstimator:
        """Return the same model for several threads, whose calls of the device all go through `run`."""
        return replace(self, run=run)

    def adapter_kind(self, name: str) -> Condition:
        """Return how the maps are encoded, whatever their column is called."""
        return CONDITIONS[self.kind]

    def working_size(self, size: Size, *, resolution_px: int | None = None) -> Size:
        """See `Estimator`; the resolution is an option of the engine, if it has one."""
        return self.engine.working_size(squeezed(size))

    def estimate(
        self, images: Sequence[Image.Image], condition: Any, *, seeds: Sequence[int], num_views: int | None = None,
        options: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Estimate the condition of each image, see `Estimator`. Very long images are squeezed for the engine.

        Raises:
            ValueError: Several views are wanted, or more than one condition.
        """
        names = (condition,) if isinstance(condition, str) else tuple(condition)
        if len(names) != 1 or num_views not in (None, 1):
            raise ValueError(f"This engine estimates one condition from one view; got {names}, num_views {num_views}.")
        from unicon.images import resize_map  # imports torch

        inputs = [_resized(image, squeezed(image.size)) for image in images]
        prepared = self.engine.prepare(inputs)
        call = lambda: self.engine.compute(prepared, seeds)  # noqa: E731
        found = self.engine.finish(call() if self.run is None else self.run(call), inputs)
        maps = [resize_map(each, image.size) for each, image in zip(found, images, strict=True)]
        return maps if isinstance(condition, str) else [{names[0]: each} for each in maps]


def squeezed(size: Size) -> Size:
    """Return a size of the same area whose aspect ratio is at most MAX_ASPECT, as `unicon.UniCon` works."""
    width, height = size
    if max(size) <= MAX_ASPECT * min(size):
        return size
    short = max(1, round(math.sqrt(width * height / MAX_ASPECT)))
    long = round(short * MAX_ASPECT)
    return (long, short) if width > height else (short, long)


def _resized(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
