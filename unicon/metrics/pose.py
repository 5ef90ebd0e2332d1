"""Share of correct keypoints (PCK) of one estimated skeleton against the people in a picture.

PCK is Yang and Ramanan's ("Articulated human detection with flexible mixtures of parts",
https://doi.org/10.1109/TPAMI.2012.261): a joint is right when it lies within a share of the size of the person's box.
Counts are summed over the images of a set, so a set's PCK is the share of all its visible joints.

Shapes: ``P`` people, ``J`` joints. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MIN_CONFIDENCE = 0.2
"""A joint read with less is taken as not drawn."""
MIN_TOLERANCE_PX = 1.0
"""Drawings are read back to within a pixel, so no box is small enough to ask for less."""


@dataclass(frozen=True, kw_only=True)
class PoseMetrics:
    """Counts of joints of one image, or of a set."""

    right: int
    """Visible true joints whose estimate is near enough."""
    visible: int
    """Visible true joints."""
    invented: int
    """Estimated joints that nobody in the picture has in view."""
    absent: int
    """Kinds of joint that nobody in the picture has in view."""

    @property
    def pck(self) -> float:
        """Share of the visible true joints that are right; 1 is perfect, nan where none is visible."""
        return self.right / self.visible if self.visible else float("nan")

    @property
    def invention(self) -> float:
        """Share of the absent joints that were estimated all the same; 0 is perfect, nan where none is absent."""
        return self.invented / self.absent if self.absent else float("nan")


def pose_metrics(estimate: np.ndarray, truth: np.ndarray, alpha: float = 0.1) -> PoseMetrics:
    """The counts of one image.

    Args:
        estimate: (J, 3) x, y in pixels and confidence, as `unicon.pose.read_pose` gives them; a joint below
            `MIN_CONFIDENCE` counts as missing, and a missing joint as wrong.
        truth: (P, J, 3) x, y in pixels and visibility. Every visible joint of every person counts, so one estimated
            skeleton cannot be right about two people.
        alpha: tolerance as a share of the longer side of the box around the person's visible joints.

    Raises:
        ValueError: the numbers of joints differ.
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
    """The counts of a set."""
    listed = list(images)
    return PoseMetrics(
        right=sum(image.right for image in listed),
        visible=sum(image.visible for image in listed),
        invented=sum(image.invented for image in listed),
        absent=sum(image.absent for image in listed),
    )
