"""From what depth estimators predict to the depth maps of this project: relative inverse depth, 0 far and 1 near."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

DEPTH, DISPARITY = "depth", "disparity"
"""What a model predicts: distances, or values that are larger where something is nearer."""
PREDICTS: Mapping[str, str] = {"dpt": DISPARITY, "zoedepth": DEPTH, "depth_pro": DEPTH, "glpn": DEPTH}
"""Type of model -> what it predicts, after the processing of its outputs by transformers."""
BY_CONFIG = ("depth_anything", "prompt_depth_anything")
"""Types of models whose configuration says what they predict: relative (disparity) or metric (depth)."""
NEAREST_PERCENT = 1.0
MIN_SHARE = 0.1
"""Distances below this share of those of the nearest percent of the pixels count as that, so that a few wrong pixels do
not flatten the rest of a map."""


def predicts(config: Mapping[str, Any], options: Mapping[str, Any], name: str) -> str:
    """Return what a model predicts, by its configuration unless an option says it. ValueError for unknown models."""
    kind = str(config.get("model_type"))
    if given := options.get("predicts"):
        return str(given)
    if kind in BY_CONFIG:
        return DEPTH if config.get("depth_estimation_type") == "metric" else DISPARITY
    if kind == "dpt" and (config.get("backbone_config") or {}).get("model_type") == "dinov2":
        return DEPTH  # trained on distances, unlike the DPT models of MiDaS
    if kind not in PREDICTS:
        raise ValueError(
            f"depth is estimated by models of the types {', '.join((*BY_CONFIG, *PREDICTS))}; {name} is of type "
            f"{kind!r}. If it is a depth estimator, add --engine-option predicts={DEPTH} or predicts={DISPARITY}."
        )
    return PREDICTS[kind]


def relative_inverse_depth(predicted: np.ndarray, predicts: str) -> np.ndarray:
    """Convert a prediction (H, W) to float32 in [0, 1], 0 at its farthest and 1 at its nearest pixel.

    A prediction of a single value becomes 0. One with values that are not finite stays as it is, so that it is noticed.

    Args:
        predicted: Distances in any unit for DEPTH, values that grow with the inverse of the distance for DISPARITY.
        predicts: DEPTH or DISPARITY.
    """
    predicted = np.asarray(predicted, dtype=np.float32)
    if not np.isfinite(predicted).all():
        return predicted
    inverse = _inverse(predicted) if predicts == DEPTH else predicted
    low, high = inverse.min(), inverse.max()
    if high <= low:
        return np.zeros_like(inverse)
    return np.clip((inverse - low) / (high - low), 0.0, 1.0)


def _inverse(depth: np.ndarray) -> np.ndarray:
    least = max(MIN_SHARE * float(np.percentile(depth, NEAREST_PERCENT)), 1e-6 * float(depth.max()))
    return 1.0 / np.maximum(depth, least) if least > 0 else np.zeros_like(depth)


def turned_around(depth: np.ndarray, near_to_far: float) -> np.ndarray:
    """Convert depth (H, W) in [0, 1], known up to scale and shift, to relative inverse depth, 0 far and 1 near.

    Args:
        depth: 0 at the nearest and 1 at the farthest point.
        near_to_far: The distance of the nearest point divided by that of the farthest, r in (0, 1]. Inverse depth is
            then r (1 - z) / (r + (1 - r) z). With 1, which says nothing about the distances, depth is turned around.
    """
    depth = np.asarray(depth, dtype=np.float32)
    return near_to_far * (1.0 - depth) / (near_to_far + (1.0 - near_to_far) * depth)
