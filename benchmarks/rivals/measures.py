"""What is measured of a trained rival, and of what needs no training.

Shapes: H W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from benchmarks.rivals.data import DEPTH
from benchmarks.rivals.rival import Estimates, Generates, Synthesizes
from unicon.metrics import correlation
from unicon.metrics.depth import depth_metrics, mean_metrics
from unicon.model import UniCon
from unicon.scenes.render import Rendering

T = TypeVar("T")
STEPS = 10
"""Sampling steps. Depth is estimated in one step too."""
GENERATED = 32
"""Largest number of generated images, those of the first scenes."""
PART_ROWS = 16
"""Rows of a call."""
GUIDANCE_SCALES = (0.0, 3.0)
"""Condition guidance of generated images: none, and as `mini` is used."""


@dataclass(frozen=True)
class Judge:
    """The depth estimator that looks at generated images: `mini` as it is shipped, one step and one view."""

    model: UniCon

    def depth(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Depth maps of images."""
        pictures = [Image.fromarray(image) for image in images]
        return self.model.estimate(pictures, DEPTH, num_inference_steps=1, num_views=1, batch_size=16)

    def likeness(self, images: Sequence[np.ndarray], maps: Sequence[np.ndarray]) -> dict[str, float]:
        """The mean correlation of the depth of images with their maps, and with the map of the next row."""
        found = self.depth(images)
        shifted = [*maps[1:], maps[0]]
        return {
            name: round(float(np.mean([correlation(*pair) for pair in zip(found, others, strict=True)])), 4)
            for name, others in (("matched", maps), ("shuffled", shifted))
        }


def measure(rival: object, scenes: Sequence[Rendering], judge: Judge, steps: int = STEPS) -> dict[str, Any]:
    """Everything that a rival can make of unseen scenes in some sampling steps, with the processor seconds of a row."""
    images = [scene.image for scene in scenes]
    captions = [scene.caption for scene in scenes[:GENERATED]]
    truths = [scene.inverse_depth for scene in scenes[:GENERATED]]
    found: dict[str, Any] = {}
    if isinstance(rival, Estimates):
        for each in sorted({1, steps}):
            maps, seconds = by_parts(partial(rival.estimate, steps=each), images)
            found[f"depth, {each} steps"] = {**depth_accuracy(maps, scenes), "seconds": seconds}
    for scale in GUIDANCE_SCALES:
        settings: dict[str, Any] = {"steps": steps, "guidance": scale}
        if isinstance(rival, Synthesizes):
            made, seconds = by_parts(partial(rival.synthesize, **settings), truths, captions)
            found[f"image, guidance {scale:g}"] = {**judge.likeness(made, truths), "seconds": seconds}
        if isinstance(rival, Generates):
            pairs, seconds = by_parts(partial(_generated, rival, **settings), captions)
            found[f"both, guidance {scale:g}"] = {**judge.likeness(*zip(*pairs, strict=True)), "seconds": seconds}
    return found


def _generated(
    rival: Generates, captions: list[str], steps: int, guidance: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(*rival.generate(captions, steps, guidance), strict=True))


def depth_accuracy(maps: Sequence[np.ndarray], scenes: Sequence[Rendering]) -> dict[str, float]:
    """Mean accuracy of depth maps, see `unicon.metrics.depth`."""
    pairs = zip(maps, scenes, strict=True)
    metrics = mean_metrics([depth_metrics(estimate, scene.depth_m) for estimate, scene in pairs])
    return {"abs_rel": round(metrics.abs_rel, 4), "delta1": round(metrics.delta1, 4)}


def by_parts(call: Callable[..., list[T]], *rows: Sequence[Any]) -> tuple[list[T], float]:
    """The results of calls with `PART_ROWS` rows each, and their processor seconds a row."""
    began, found = time.process_time(), []
    for start in range(0, len(rows[0]), PART_ROWS):
        found += call(*(list(column[start : start + PART_ROWS]) for column in rows))
    return found, round((time.process_time() - began) / len(rows[0]), 3)
