"""Measuring `mini` on scenes outside its training data, at every checkpoint.

Tested in tests/unicon/training/mini/test_train.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from unicon.conditions import CONDITIONS
from unicon.metrics.depth import depth_metrics, mean_metrics
from unicon.metrics.edge import best_edge_metrics, edge_counts
from unicon.metrics.pose import pose_metrics, total_pose_metrics
from unicon.model import UniCon
from unicon.pose import read_pose
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering

VALIDATION_SEED = 2
SHOWN = 16
"""Largest number of scenes that are drawn."""
TRUTHS: dict[str, Callable[[Rendering], np.ndarray]] = {
    "depth": lambda scene: scene.inverse_depth,
    "edge": lambda scene: scene.edges.astype(np.float32),
    "pose": lambda scene: scene.pose.astype(np.float32) / 255,
}
"""The exact condition of a scene, as a map of its kind."""


def validate(model: UniCon, kind: str, folder: Path, step: int, count: int) -> None:
    """Estimate conditions of scenes in one step, print the accuracy, and draw images, truths and estimates."""
    scenes = [render(sample_scene(VALIDATION_SEED, index)) for index in range(count)]
    images = [Image.fromarray(scene.image) for scene in scenes]
    estimates = model.estimate(images, kind, num_inference_steps=1, num_views=1, batch_size=SHOWN)
    print(json.dumps({"step": step, "condition": kind, **accuracy(kind, estimates, scenes)}), flush=True)
    truths = [TRUTHS[kind](scene) for scene in scenes]
    previews = [[CONDITIONS[kind].preview(each) for each in maps[:SHOWN]] for maps in (truths, estimates)]
    rows = [images[:SHOWN], *previews]
    sheet = np.concatenate([np.concatenate([np.asarray(image) for image in row], 1) for row in rows])
    Image.fromarray(sheet).save(folder / f"{kind}-{step:06d}.png")


def accuracy(kind: str, estimates: Sequence[np.ndarray], scenes: Sequence[Rendering]) -> dict[str, float]:
    """The accuracy of estimates of scenes, by the names of `unicon.metrics`."""
    pairs = list(zip(estimates, scenes, strict=True))
    if kind == "depth":
        return asdict(mean_metrics([depth_metrics(estimate, scene.depth_m) for estimate, scene in pairs]))
    if kind == "edge":
        return asdict(best_edge_metrics([edge_counts(estimate, scene.edges) for estimate, scene in pairs]))
    joints = [read_pose(np.rint(estimate * 255).astype(np.uint8)) for estimate in estimates]
    found = total_pose_metrics([pose_metrics(each, scene.people) for each, scene in zip(joints, scenes, strict=True)])
    return {"pck": found.pck, "invention": found.invention}
