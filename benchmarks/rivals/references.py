"""What the numbers of the rivals are compared with: trivial guesses, the base alone, `mini` as it is shipped, truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.rivals.base import MODEL, Base, read_base
from benchmarks.rivals.controlnet_rival import ControlNetRival
from benchmarks.rivals.data import TrainingScenes
from benchmarks.rivals.measures import GENERATED, STEPS, Judge, by_parts, depth_accuracy, measure
from benchmarks.rivals.regression_rival import RegressionRival
from benchmarks.rivals.unicon_rival import ShippedMini
from unicon.files.folder import find_folder
from unicon.metrics.depth import vertical_ramp
from unicon.scenes.render import Rendering


def measure_references(
    base: Base, training: TrainingScenes, scenes: Sequence[Rendering], judge: Judge
) -> dict[str, Any]:
    """Results by name, in the form of `measure`."""
    truths = [scene.inverse_depth for scene in scenes]
    images = [scene.image for scene in scenes[:GENERATED]]
    ramp = vertical_ramp(*truths[0].shape)
    mean = (training.arrays.inverse_depths.mean(0) / 65535).astype(np.float32)
    return {
        "vertical ramp": {"depth, 1 steps": depth_accuracy([ramp] * len(scenes), scenes)},
        "mean map of the training scenes": {"depth, 1 steps": depth_accuracy([mean] * len(scenes), scenes)},
        "output of mini's UNet at timestep 0": {
            "depth, 1 steps": _output_at_zero(read_base(find_folder(MODEL)), training, scenes)
        },
        "output of the base at timestep 0": {"depth, 1 steps": _output_at_zero(base, training, scenes)},
        "base with captions alone": {"image, guidance 0": _captions_alone(base, training, scenes[:GENERATED], judge)},
        "true images": {"image, guidance 0": judge.likeness(images, truths[:GENERATED])},
        "mini as shipped": measure(ShippedMini(), scenes, judge),
    }


def _output_at_zero(base: Base, training: TrainingScenes, scenes: Sequence[Rendering]) -> dict[str, float]:
    """What regression from this base begins with."""
    rival = RegressionRival(base, training, 1, from_base=True)
    maps, _ = by_parts(lambda images: rival.estimate(images, 1), [scene.image for scene in scenes])
    return depth_accuracy(maps, scenes)


def _captions_alone(
    base: Base, training: TrainingScenes, scenes: Sequence[Rendering], judge: Judge
) -> dict[str, float]:
    """Images of the base: an untrained ControlNet changes nothing."""
    rival = ControlNetRival(base, training, 1)
    truths, captions = [scene.inverse_depth for scene in scenes], [scene.caption for scene in scenes]
    made, _ = by_parts(lambda maps, texts: rival.synthesize(maps, texts, STEPS, 0.0), truths, captions)
    return judge.likeness(made, truths)
