"""Depth metrics that do not depend on scale and shift: the accuracy of a relative inverse depth map in meters.

The protocol is that of MiDaS for affine-invariant predictions (Ranftl et al., arXiv 1907.01341, section 6, "Evaluation
metrics"; also used by DPT, arXiv 2103.13413). For every image, the prediction is aligned with the true inverse depth by
the best scale and shift over the valid pixels, the aligned inverse depth is limited from below by one over the depth
cap, and errors are measured on depth. The metric of a dataset is the mean over its images, not over its pixels.

Nothing constrains the scale to be positive. A map with near and far swapped is still judged by its best fit, so also
look at the images.

Shapes: H W pixels. Pure NumPy.

Tested in tests/unicon/metrics/test_metrics.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

MAX_DEPTH_M = 12.0
"""Default depth cap. No wall of a rendered room is farther from a camera in it."""
DELTA_BASE = 1.25
"""Pixels whose ratio of depths is below 1.25, 1.25^2, 1.25^3 count for delta1, delta2, delta3."""


@dataclass(frozen=True, kw_only=True)
class DepthMetrics:
    """Errors of one image, or their means over images."""

    abs_rel: float
    """Mean of |estimate - truth| / truth; 0 is perfect."""
    rmse_m: float
    """Root of the mean squared error, in meters; 0 is perfect."""
    delta1: float
    """Fraction of pixels whose ratio of estimate and truth, larger over smaller, is below 1.25; 1 is perfect."""
    delta2: float
    """The same below 1.25^2."""
    delta3: float
    """The same below 1.25^3."""


def depth_metrics(
    relative_inverse_depth: np.ndarray, true_depth_m: np.ndarray, max_depth_m: float = MAX_DEPTH_M
) -> DepthMetrics:
    """The metrics of one image after the best affine alignment.

    Args:
        relative_inverse_depth: (H, W) estimate, of any scale and shift; larger is nearer.
        true_depth_m: (H, W) in meters. Pixels that are not finite (the sky), not positive, or beyond `max_depth_m` do
            not count.
        max_depth_m: The depth cap. Farther pixels do not count, and estimates are limited to it.

    Raises:
        ValueError: The shapes differ, no pixel is valid, or the estimate is not finite at a valid pixel.
    """
    valid = valid_pixels(true_depth_m, max_depth_m)
    _check(relative_inverse_depth, true_depth_m, valid, max_depth_m)
    estimate = relative_inverse_depth[valid].astype(np.float64)
    truth_m = true_depth_m[valid].astype(np.float64)
    scale, shift = best_affine(estimate, 1 / truth_m)
    depth_m = 1 / np.maximum(scale * estimate + shift, 1 / max_depth_m)
    error_m = depth_m - truth_m
    ratio = np.maximum(depth_m / truth_m, truth_m / depth_m)
    return DepthMetrics(
        abs_rel=float(np.mean(np.abs(error_m) / truth_m)),
        rmse_m=float(np.sqrt(np.mean(error_m**2))),
        delta1=float(np.mean(ratio < DELTA_BASE)),
        delta2=float(np.mean(ratio < DELTA_BASE**2)),
        delta3=float(np.mean(ratio < DELTA_BASE**3)),
    )


def valid_pixels(true_depth_m: np.ndarray, max_depth_m: float = MAX_DEPTH_M) -> np.ndarray:
    """(H, W) bool: pixels whose true depth is known and within the cap."""
    return np.isfinite(true_depth_m) & (true_depth_m > 0) & (true_depth_m <= max_depth_m)


def best_affine(estimate: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """The scale and shift of the least-squares fit of `scale * estimate + shift` to `target`, both (N,).

    For a constant estimate, the scale is 0 and the shift is the mean of the target.
    """
    centered = estimate - estimate.mean()
    variance = float(np.mean(centered**2))
    scale = float(np.mean(centered * (target - target.mean()))) / variance if variance > 0 else 0.0
    return scale, float(target.mean()) - scale * float(estimate.mean())


def mean_metrics(images: Sequence[DepthMetrics]) -> DepthMetrics:
    """The mean over images.

    Raises:
        ValueError: There are no images.
    """
    if not images:
        raise ValueError("a mean needs at least one image, got none")
    abs_rel, rmse_m, delta1, delta2, delta3 = np.mean([astuple(image) for image in images], axis=0).tolist()
    return DepthMetrics(abs_rel=abs_rel, rmse_m=rmse_m, delta1=delta1, delta2=delta2, delta3=delta3)


def vertical_ramp(height_px: int, width_px: int) -> np.ndarray:
    """The simplest guess of a depth map: (H, W) float32, 0 (far) in the top row, 1 (near) in the bottom row."""
    column = np.linspace(0.0, 1.0, height_px, dtype=np.float32)[:, None]
    return np.repeat(column, width_px, axis=1)


def _check(estimate: np.ndarray, truth_m: np.ndarray, valid: np.ndarray, max_depth_m: float) -> None:
    if estimate.shape != truth_m.shape:
        raise ValueError(
            f"estimate and truth must have one shape, got {estimate.shape} and {truth_m.shape}: resize the estimate"
        )
    if not valid.any():
        raise ValueError(
            f"the truth must have a finite depth up to {max_depth_m:g} m somewhere, its smallest is "
            f"{float(truth_m.min(initial=np.inf)):g} m: raise the cap, or leave this image out"
        )
    if not np.isfinite(estimate[valid]).all():
        raise ValueError(
            "the estimate must be finite where the truth is valid; "
            f"{int((~np.isfinite(estimate[valid])).sum())} pixels are not"
        )
