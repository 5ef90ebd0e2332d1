"""Judging adapters in training on rows that are held out: sheets of images for people, and numbers.

The numbers by adapter name: `NAME_difference` is the mean absolute difference of the maps (after the best scale and
shift where a kind has none of its own); `NAME_correlation` (depth), `NAME_f1` (edges), `NAME_pck` (poses) and
`NAME_angle_deg` (normals) are of `unicon.metrics`. The truth is the row's own map, so it is as good as what made it.

Shapes: H W pixels.

Tested in tests/unicon/training/test_validation.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from unicon.conditions import CONDITIONS
from unicon.images import resize_map
from unicon.metrics.correlation import correlation
from unicon.metrics.depth import best_affine
from unicon.metrics.edge import best_edge_metrics, edge_counts
from unicon.metrics.pose import MIN_CONFIDENCE, pose_metrics, total_pose_metrics
from unicon.pose import read_pose
from unicon.training.adapter_files import AdapterTraining
from unicon.training.sheets import draw_sheet
from unicon.training.views import PairRow

Maps = Sequence[np.ndarray]
Measure = Callable[[Maps, Maps], dict[str, float]]
"""(estimates, truths) of a kind -> numbers by name."""
EDGE_THRESHOLD = 0.5
"""Pixels of a true edge map above this are edges."""


class Validation(NamedTuple):
    """What a validation finds."""

    numbers: dict[str, float]
    """Numbers that are defined, by names that begin with that of their adapter."""
    sheets: dict[str, Image.Image]
    """Adapter -> a sheet with a line for every row: image, true map, estimate."""


def validate(training: AdapterTraining, rows: Sequence[PairRow], kinds: Mapping[str, str]) -> Validation:
    """Estimate the conditions of rows with the adapters as they are.

    A condition of an unknown kind is drawn without an estimate.

    Args:
        training: The training.
        rows: The rows.
        kinds: Adapter -> its kind of condition.
    """
    numbers: dict[str, float] = {}
    sheets: dict[str, Image.Image] = {}
    for name, kind in kinds.items():
        lines = [[row.image, row.maps[name].convert("RGB").resize(row.image.size)] for row in rows]
        if kind in CONDITIONS:
            truths = [resize_map(CONDITIONS[kind].decode(row.maps[name]), row.image.size) for row in rows]
            estimates = _estimates(training, name, rows)
            found = measure(kind, estimates, truths)
            numbers |= {f"{name}_{key}": value for key, value in found.items() if math.isfinite(value)}
            preview = CONDITIONS[kind].preview
            for line, truth, estimate in zip(lines, truths, estimates, strict=True):
                line[1:] = [preview(truth), preview(estimate)]
        sheets[name] = draw_sheet(lines)
    return Validation(numbers, sheets)


def _estimates(training: AdapterTraining, name: str, rows: Sequence[PairRow]) -> list[np.ndarray]:
    unet = training.models.unet
    with torch.autocast(unet.device.type, unet.dtype, enabled=unet.dtype != torch.float32):
        return training.model().estimate(
            [row.image for row in rows], name, resolution_px=training.views.resolution_px, batch_size=1
        )


def measure(kind: str, estimates: Maps, truths: Maps) -> dict[str, float]:
    """Compare the estimates of a kind with the truths, maps (H, W) or (H, W, 3) of the same sizes."""
    pairs = list(zip(estimates, truths, strict=True))
    is_affine = CONDITIONS[kind].is_affine
    differences = [np.abs((_aligned(one, truth) if is_affine else one) - truth).mean() for one, truth in pairs]
    return {"difference": float(np.mean(differences)), **MEASURES.get(kind, _nothing)(estimates, truths)}


def _aligned(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    scale, shift = best_affine(estimate.ravel().astype(np.float64), truth.ravel().astype(np.float64))
    return scale * estimate + shift


def _depth(estimates: Maps, truths: Maps) -> dict[str, float]:
    found = [correlation(one, truth) for one, truth in zip(estimates, truths, strict=True)]
    return {"correlation": float(np.mean(found))}


def _edge(estimates: Maps, truths: Maps) -> dict[str, float]:
    counts = [edge_counts(one, truth > EDGE_THRESHOLD) for one, truth in zip(estimates, truths, strict=True)]
    return {"f1": best_edge_metrics(counts).f1}


def _pose(estimates: Maps, truths: Maps) -> dict[str, float]:
    joints = [[read_pose(np.rint(255 * each).astype(np.uint8)) for each in maps] for maps in (estimates, truths)]
    for truth in joints[1]:
        truth[:, 2] = truth[:, 2] >= MIN_CONFIDENCE
    counts = [pose_metrics(one, truth[None]) for one, truth in zip(*joints, strict=True)]
    return {"pck": total_pose_metrics(counts).pck}


def _normal(estimates: Maps, truths: Maps) -> dict[str, float]:
    degrees = []
    for pair in zip(estimates, truths, strict=True):
        one, truth = (values.astype(np.float64) * 2 - 1 for values in pair)
        norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(truth, axis=-1)
        cosine = (one * truth).sum(-1) / np.maximum(norms, 1e-6)
        degrees.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())
    return {"angle_deg": float(np.mean(degrees))}


def _nothing(estimates: Maps, truths: Maps) -> dict[str, float]:
    return {}


MEASURES: dict[str, Measure] = {"depth": _depth, "edge": _edge, "pose": _pose, "normal": _normal}
"""What is measured beside the difference, by kind."""
