"""Percentage of correct keypoints (PCK) of one estimated skeleton against the people in an image.

PCK is that of Yang and Ramanan ("Articulated human detection with flexible mixtures of parts",
https://doi.org/10.1109/TPAMI.2012.261): a joint is right if its error is within a fraction of the size of the person's
box. Counts are summed over the images of a dataset, so its PCK is the fraction of all its visible joints.

Shapes: P people, J joints. Pure NumPy.

Tested in tests/unicon/metrics/test_metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MIN_CONFIDENCE = 0.2
"""Joints read with a lower confidence count as not drawn."""
MIN_TOLERANCE_PX = 1.0
"""Lower limit of the tolerance, since drawings are read back to within a pixel."""


@dataclass(frozen=True, kw_only=True)
class PoseMetrics:
    """Counts of joints of one image or of a dataset."""

    right: int
    """Visible true joints whose estimate is within the tolerance."""
    visible: int
    """Visible true joints."""
    invented: int
    """Estimated joints that are visible on nobody in the image."""
    absent: int
    """Kinds of joints that are visible on nobody in the image."""

    @property
    def pck(self) -> float:
        """Fraction of the visible true joints that are right; 1 is perfect, NaN if none is visible."""
        return self.right / self.visible if self.visible else float("nan")

    @property
    def invention(self) -> float:
        """Fraction of the absent joints that were estimated; 0 is perfect, NaN if none is absent."""
        return self.invented / self.absent if self.absent else float("nan")


def pose_metrics(estimate: np.ndarray, truth: np.ndarray, alpha: float = 0.1) -> PoseMetrics:
    """The counts of one image.

    Args:
        estimate: (J, 3) x, y in pixels and confidence, as returned by `unicon.pose.read_pose`. A joint below
            `MIN_CONFIDENCE` counts as missing, and a missing joint as wrong.
        truth: (P, J, 3) x, y in pixels and visibility. Every visible joint of every person counts, so one estimated
            skeleton cannot be right for two people.
        alpha: Tolerance as a fraction of the longer side of the box around the person's visible joints.

    Raises:
        ValueError: The numbers of joints differ.
    """
    if estimate.ndim != 2 or truth.ndim != 3 or estimate.shape != truth.shape[1:]:
        raise ValueError(f"shapes must be (J, 3) and (P, J, 3), got {estimate.shape} and {truth.shape}")
    drawn = estimate[:, 2] >= MIN_CONFIDENCE
    in_view = truth[..., 2] > 0
    right = 0
    for person, seen in zip(truth, in_view, strict=True):
        if seen.any():
            tolerance_px = max(alpha * float(np.ptp(person[seen, :2], axis=0).max()), MIN_TOLERANCE_PX)
            error_px = np.linalg.norm(estimate[:, :2] - person[:, :2], axis=1)
            right += int((seen & drawn & (error_px <= tolerance_px)).sum())
    absent = ~in_view.any(0)
    return PoseMetrics(
        right=right, visible=int(in_view.sum()), invented=int((drawn & absent).sum()), absent=int(absent.sum())
    )


def total_pose_metrics(images: Iterable[PoseMetrics]) -> PoseMetrics:
    """The counts of a dataset."""
    listed = list(images)
    return PoseMetrics(
        right=sum(image.right for image in listed),
        visible=sum(image.visible for image in listed),
        invented=sum(image.invented for image in listed),
        absent=sum(image.absent for image in listed),
    )
