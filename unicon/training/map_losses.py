"""Losses between an estimated and the true map of a condition, for training through the decoder.

Shapes: B maps, C channels (1 or 3), H W pixels. Values are in [0, 1]; estimates may leave it.

Source of the loss for depth: "Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think",
arXiv 2409.11355, section 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, max_pool2d

MapLoss = Callable[[Tensor, Tensor], Tensor]
"""(estimates, truths), both (B, C, H, W) -> their loss, a scalar."""
MIN_VARIANCE = 1e-4
"""Lower limit of the variance of an estimate that is aligned, so that a constant estimate has a finite gradient."""
RELATIVE_OFFSET = 0.2
"""Errors of an affine map count relative to its true value plus this, as errors of depth are judged relative to it."""
LINE_WEIGHT = 3.0
"""Additional weight of the pixels on a true line."""
LINE_TOLERANCE_PX = 1
DRAWING_WEIGHT = 15.0
"""Additional weight of the brightest pixels of a drawing on black, which covers a small part of an image."""


def affine_loss(estimates: Tensor, truths: Tensor) -> Tensor:
    """Mean relative L1 after the best scale and shift of every estimate, see `align`. For depth."""
    errors = (align(estimates, truths) - truths).abs() / (truths + RELATIVE_OFFSET)
    return errors.mean()


def align(estimates: Tensor, truths: Tensor) -> Tensor:
    """The estimates (B, C, H, W) with the scale and shift of each that bring it closest to its truth (least squares).

    The scale and shift are differentiable functions of the estimates.
    """
    dims = (1, 2, 3)
    mean, true_mean = estimates.mean(dims, keepdim=True), truths.mean(dims, keepdim=True)
    centered = estimates - mean
    variance = centered.square().mean(dims, keepdim=True)
    covariance = (centered * (truths - true_mean)).mean(dims, keepdim=True)
    return covariance / (variance + MIN_VARIANCE) * centered + true_mean


def line_loss(estimates: Tensor, truths: Tensor) -> Tensor:
    """Weighted L1, plus one minus a soft F1 score with a tolerance of `LINE_TOLERANCE_PX`. For edges.

    L1 alone is lowest without lines that are uncertain. The F1 score counts a line next to its true place as right.
    """
    weights = 1 + LINE_WEIGHT * truths
    l1 = (weights * (estimates - truths).abs()).sum() / weights.sum()
    drawn = estimates.clamp(0, 1)
    right, found = (drawn * _largest_near(truths)).sum(), (_largest_near(drawn) * truths).sum()
    precision, recall = right / drawn.sum().clamp(min=1e-6), found / truths.sum().clamp(min=1e-6)
    return l1 + 1 - 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def drawing_loss(estimates: Tensor, truths: Tensor) -> Tensor:
    """L1 in which bright pixels of the truth weigh more, so that a drawing on black does not vanish. For poses."""
    weights = 1 + DRAWING_WEIGHT * truths.amax(1, keepdim=True).square()
    return (weights * (estimates - truths).abs()).sum() / (weights.sum() * estimates.shape[1])


def angle_loss(estimates: Tensor, truths: Tensor) -> Tensor:
    """One minus the mean cosine of the angles between vectors, of which [0, 1] is [-1, 1]. For surface normals."""
    return 1 - cosine_similarity(2 * estimates - 1, 2 * truths - 1, dim=1).mean()


def _largest_near(values: Tensor) -> Tensor:
    return max_pool2d(values, 2 * LINE_TOLERANCE_PX + 1, stride=1, padding=LINE_TOLERANCE_PX)


MAP_LOSSES: dict[str, MapLoss] = {
    "depth": affine_loss,
    "edge": line_loss,
    "pose": drawing_loss,
    "normal": angle_loss,
}
"""The loss of every kind of condition that can be estimated."""


def map_losses_by_row(kind: str, estimates: Tensor, truths: Tensor) -> Tensor:
    """The loss (B,) of every map of a kind alone, so that it does not depend on the other maps of a batch."""
    rows = zip(estimates.split(1), truths.split(1), strict=True)
    return torch.stack([MAP_LOSSES[kind](estimate, truth) for estimate, truth in rows])
