"""Precision and recall of edge maps at a tolerance, and the best F1 of a dataset at one threshold.

An estimated edge pixel is right if a true one is within the tolerance. A true one is found if an estimated one is
within the tolerance. Distance is the larger of the row and the column difference (Chebyshev), so that a tolerance of 1
is the 3 x 3 neighborhood. This follows the Berkeley benchmark (Arbelaez et al., "Contour detection and hierarchical
image segmentation", https://doi.org/10.1109/TPAMI.2010.161), without its one-to-one matching and thinning: a line may
be as thick as the tolerance allows, 3 pixels at a tolerance of 1, before it loses precision.

Pixel counts are summed over the images of a dataset before precision and recall are computed, and one threshold is used
for the whole dataset ("optimal dataset scale", ODS).

Shapes: H W pixels, T thresholds. Pure NumPy.

Tested in tests/unicon/metrics/test_metrics.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.arange(1, 100, dtype=np.float32) / 100
"""(T,) thresholds of `best_edge_metrics`. A pixel is an edge if the estimate is at least the threshold."""


@dataclass(frozen=True, kw_only=True)
class EdgeMetrics:
    """The metrics of one image or of a dataset at one threshold."""

    f1: float
    """Harmonic mean of precision and recall; 1 is perfect."""
    precision: float
    """Fraction of the estimated edge pixels with a true one within the tolerance; 1 if none is estimated."""
    recall: float
    """Fraction of the true edge pixels with an estimated one within the tolerance; 1 if there is none."""
    threshold: float


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeCounts:
    """Pixel counts of one image or of a dataset at every threshold."""

    estimated: np.ndarray
    """(T,) number of estimated edge pixels."""
    right: np.ndarray
    """(T,) number of estimated edge pixels near a true one."""
    found: np.ndarray
    """(T,) number of true edge pixels near an estimated one."""
    true: int
    """Number of true edge pixels."""

    def metrics(self, thresholds: np.ndarray) -> list[EdgeMetrics]:
        """Precision, recall and F1 at each of the counted thresholds (T,)."""
        precision = np.where(self.estimated > 0, self.right / np.maximum(self.estimated, 1), 1.0)
        recall = self.found / self.true if self.true else np.ones(len(thresholds))
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return [
            EdgeMetrics(f1=float(f), precision=float(p), recall=float(r), threshold=float(t))
            for f, p, r, t in zip(f1, precision, recall, thresholds, strict=True)
        ]


def edge_metrics(estimate: np.ndarray, truth: np.ndarray, threshold: float, tolerance_px: int = 1) -> EdgeMetrics:
    """Precision, recall and F1 of one image at one threshold.

    Args:
        estimate: (H, W) edge strength in [0, 1].
        truth: (H, W) bool.
        threshold: A pixel is an estimated edge if the estimate is at least this.
        tolerance_px: Largest distance between an estimated and a true pixel, along rows and columns.

    Raises:
        ValueError: The shapes differ, or the estimate is not finite.
    """
    thresholds = np.array([threshold])
    return edge_counts(estimate, truth, tolerance_px, thresholds).metrics(thresholds)[0]


def edge_counts(
    estimate: np.ndarray, truth: np.ndarray, tolerance_px: int = 1, thresholds: np.ndarray = THRESHOLDS
) -> EdgeCounts:
    """Count the pixels of one image at all thresholds, which are ascending; see `edge_metrics`.

    Raises:
        ValueError: The shapes differ, or the estimate is not finite.
    """
    if estimate.shape != truth.shape:
        raise ValueError(
            f"estimate and truth must have one shape, got {estimate.shape} and {truth.shape}: resize the estimate"
        )
    if not np.isfinite(estimate).all():
        raise ValueError(f"the estimate must be finite; {int((~np.isfinite(estimate)).sum())} pixels are not")
    truth = truth.astype(bool)
    near_truth = _largest_near(truth.astype(np.float32), tolerance_px) > 0
    return EdgeCounts(
        estimated=_at_least(estimate, thresholds),
        right=_at_least(estimate[near_truth], thresholds),
        found=_at_least(_largest_near(estimate, tolerance_px)[truth], thresholds),
        true=int(truth.sum()),
    )


def best_edge_metrics(images: Sequence[EdgeCounts]) -> EdgeMetrics:
    """The metrics of a dataset at the threshold of `THRESHOLDS` with the best F1, from the counts of all images.

    They are NaN if no image has a true edge pixel: an estimate without edges would otherwise seem perfect.

    Raises:
        ValueError: There are no images.
    """
    if not images:
        raise ValueError("the metrics of a set need at least one image, got none")
    total = EdgeCounts(
        estimated=np.stack([image.estimated for image in images]).sum(0, dtype=np.int64),
        right=np.stack([image.right for image in images]).sum(0, dtype=np.int64),
        found=np.stack([image.found for image in images]).sum(0, dtype=np.int64),
        true=sum(image.true for image in images),
    )
    if not total.true:
        return EdgeMetrics(f1=math.nan, precision=math.nan, recall=math.nan, threshold=math.nan)
    return max(total.metrics(THRESHOLDS), key=lambda metrics: metrics.f1)


def gradient_magnitude(image: np.ndarray) -> np.ndarray:
    """The magnitude of the Sobel gradient of an image (H, W, 3) uint8, (H, W) in [0, 1], as a plain edge filter.

    A step from black to white has magnitude 1. Gray is Rec. 601 luma. The border pixels are repeated outward.
    """
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    padded = np.pad(gray, 1, mode="edge")
    across, down = padded[:, 2:] - padded[:, :-2], padded[2:] - padded[:-2]
    horizontal = (across[:-2] + 2 * across[1:-1] + across[2:]) / 4
    vertical = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 4
    return np.minimum(np.hypot(horizontal, vertical), 1)


def _at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) int32: the number of values that reach each of the ascending thresholds."""
    reached = np.searchsorted(thresholds, values.ravel(), side="right")
    return len(reached) - np.bincount(reached, minlength=len(thresholds) + 1).cumsum()[:-1].astype(np.int32)


def _largest_near(values: np.ndarray, tolerance_px: int) -> np.ndarray:
    """The largest value within the tolerance of each pixel, (H, W)."""
    width = 2 * tolerance_px + 1
    padded = np.pad(values, tolerance_px, constant_values=-np.inf)
    rows = np.lib.stride_tricks.sliding_window_view(padded, width, 0).max(-1)
    return np.lib.stride_tricks.sliding_window_view(rows, width, 1).max(-1)
