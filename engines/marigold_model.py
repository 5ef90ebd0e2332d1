# diffusers passes and declares its pipelines' parts and results too widely.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
"""A loaded Marigold pipeline. Imports torch and diffusers.

Tested in tests/engines/test_marigold.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import MarigoldDepthPipeline, MarigoldNormalsPipeline
from PIL import Image

from engines.depth import relative_inverse_depth, turned_around
from engines.diffusers_parts import load_pipeline
from engines.estimator import MapEngine
from engines.interfaces import Target
from engines.options import Value
from unicon.ensemble import member_seeds


class MarigoldModel(MapEngine):
    """The pipeline; images of one size share a batch, in which every estimate has a generator of its own."""

    def __init__(self, options: Mapping[str, Value], target: Target) -> None:
        call = dict(options)
        self.near_to_far = float(call.pop("near_to_far", 1.0))
        self.ensemble_size = int(call.get("ensemble_size", 1))
        self.call: dict[str, Any] = call
        self.pipeline = load_pipeline((MarigoldDepthPipeline, MarigoldNormalsPipeline), target)

    def compute(self, prepared: Sequence[Image.Image], seeds: Sequence[int]) -> np.ndarray:
        """Return predictions (B, H, W, channels)."""
        members = [each for seed in seeds for each in member_seeds(seed, self.ensemble_size)]
        generators = [torch.Generator().manual_seed(seed) for seed in members]
        result = self.pipeline(list(prepared), generator=generators, batch_size=len(members), **self.call)
        return np.asarray(result.prediction)

    def finish(self, computed: np.ndarray, images: Sequence[Image.Image]) -> list[np.ndarray]:
        return [self._map(each.astype(np.float32)) for each in computed]

    def _map(self, predicted: np.ndarray) -> np.ndarray:
        """A prediction (H, W, channels) -> a map: normals from -1 to 1, or depth or disparity from 0 to 1."""
        if predicted.shape[-1] == 3:
            return np.clip(predicted * 0.5 + 0.5, 0.0, 1.0)
        depth = predicted[..., 0]
        if self.pipeline.config.prediction_type == "disparity":
            return depth
        if self.pipeline.config.shift_invariant is False:  # proportional to the distance
            return relative_inverse_depth(depth, "depth")
        return turned_around(depth, self.near_to_far)
