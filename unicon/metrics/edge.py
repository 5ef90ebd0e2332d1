"""Precision and recall of edge maps at a tolerance, and the best F1 that one threshold reaches on a whole set.

An estimated edge pixel is right when a true one lies within the tolerance; a true one is found when an estimated one
does. Distance is the larger of the row and the column difference (Chebyshev): a tolerance of 1 is the 3 x 3
neighbourhood. This is the scheme of the Berkeley benchmark (Arbelaez et al., "Contour detection and hierarchical image
segmentation", https://doi.org/10.1109/TPAMI.2010.161) without its one-to-one matching and without thinning: a line may
be as thick as the tolerance allows, 3 pixels at a tolerance of 1, before it loses precision.

Counts of pixels are summed over the images of a set before precision and recall are taken, and one threshold serves the
whole set ("optimal dataset scale", ODS).

Shapes: ``H W`` pixels, ``T`` thresholds. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.arange(1, 100, dtype=np.float32) / 100
"""(T,) that `best_edge_metrics` tries: a pixel is an edge where the estimate is at least the threshold."""


@dataclass(frozen=True, kw_only=True)
class EdgeMetrics:
    """Of one image, or of a set, at one threshold."""

    f1: float
    """Harmonic mean of precision and recall; 1 is perfect."""
    precision: float
    """Share of the estimated edge pixels with a true one within the tolerance; 1 where none is estimated."""
    recall: float
    """Share of the true edge pixels with an estimated one within the tolerance; 1 where there is none."""
    threshold: float


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeCounts:
    """Pixels of one image, or of a set, at every threshold."""

    estimated: np.ndarray
    """(T,) estimated edge pixels."""
    right: np.ndarray
    """(T,) of these, the ones near a true one."""
    found: np.ndarray
    """(T,) true edge pixels near an estimated one."""
    true: int
    """True edge pixels."""

    def metrics(self, thresholds: np.ndarray) -> list[EdgeMetrics]:
        """Precision, recall and F1 at each of the thresholds (T,) that were counted."""
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
        estimate: (H, W) strength of the edge at a pixel, in [0, 1].
        truth: (H, W) bool.
        threshold: a pixel is an estimated edge where the estimate is at least this.
        tolerance_px: how far an estimated and a true pixel may lie apart, along rows and columns.

    Raises:
        ValueError: shapes differ, or the estimate is not finite.
    """
    thresholds = np.array([threshold])
    return edge_counts(estimate, truth, tolerance_px, thresholds).metrics(thresholds)[0]


def edge_counts(
    estimate: np.ndarray, truth: np.ndarray, tolerance_px: int = 1, thresholds: np.ndarray = THRESHOLDS
) -> EdgeCounts:
    """Count the pixels of one image at all thresholds (rising); see `edge_metrics`.

    Raises:
        ValueError: shapes differ, or the estimate is not finite.
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
    """The metrics of a set at the threshold of `THRESHOLDS` with the best F1: the counts of all images together.

    Raises:
        ValueError: there are no images.
    """
    if not images:
        raise ValueError("the metrics of a set need at least one image, got none")
    total = EdgeCounts(
        estimated=np.sum([image.estimated for image in images], 0, dtype=np.int64),
        right=np.sum([image.right for image in images], 0, dtype=np.int64),
        found=np.sum([image.found for image in images], 0, dtype=np.int64),
        true=sum(image.true for image in images),
    )
    return max(total.metrics(THRESHOLDS), key=lambda metrics: metrics.f1)


def gradient_magnitude(picture: np.ndarray) -> np.ndarray:
    """What a plain edge filter says of a picture (H, W, 3) uint8: Sobel's gradient of its grey, (H, W) in [0, 1].

    A step from black to white has 1. Grey is Rec. 601 luma; the border is repeated outwards.
    """
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    padded = np.pad(grey, 1, mode="edge")
    across, down = padded[:, 2:] - padded[:, :-2], padded[2:] - padded[:-2]
    horizontal = (across[:-2] + 2 * across[1:-1] + across[2:]) / 4
    vertical = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 4
    return np.minimum(np.hypot(horizontal, vertical), 1)


def _at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) int32: how many values reach each of the rising thresholds."""
    reached = np.searchsorted(thresholds, values.ravel(), side="right")
    return len(reached) - np.bincount(reached, minlength=len(thresholds) + 1).cumsum()[:-1].astype(np.int32)


def _largest_near(values: np.ndarray, tolerance_px: int) -> np.ndarray:
    """(H, W): the largest value within the tolerance of each pixel."""
    width = 2 * tolerance_px + 1
    padded = np.pad(values, tolerance_px, constant_values=-np.inf)
    rows = np.lib.stride_tricks.sliding_window_view(padded, width, 0).max(-1)
    return np.lib.stride_tricks.sliding_window_view(rows, width, 1).max(-1)
