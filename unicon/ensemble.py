"""Several estimates of one picture: their median, and where they disagree.

Source: test-time ensembling, arXiv 2312.02145 (Marigold), section 3.4; here the scales and shifts come from alternating
least squares against the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unicon.images import resize_map

ALIGNMENTS = 5
"""Alternations of aligning and taking the median."""
MIN_CORRELATION = 0.5
"""A member less like the reference than this is not stretched any further to fit it."""


@dataclass(frozen=True)
class Estimate:
    """The estimate of an ensemble."""

    map: np.ndarray
    """The members' median, float32 (H, W) or (H, W, 3) in [0, 1]."""
    spread: np.ndarray
    """Median absolute deviation of the members at every pixel after alignment, the mean over channels, in the units of
    the map; float32 (H, W), 0 to 0.5."""

    @property
    def confidence(self) -> float:
        """1 - 2 * mean spread, in [0, 1]: 1 when the members agree, 0 when half of them say 0 and half say 1."""
        return float(np.clip(1.0 - 2.0 * self.spread.mean(dtype=np.float64), 0.0, 1.0))

    def resized(self, size: tuple[int, int]) -> Estimate:
        """The estimate at `size` = (width, height)."""
        return Estimate(resize_map(self.map, size), resize_map(self.spread, size))


def member_seeds(seed: int, count: int) -> list[int]:
    """Seeds of an ensemble: the row's own first, the others drawn from it; fewer members have the first of more.

    Errors: ValueError for less than one member.
    """
    if count < 1:
        raise ValueError(f"An ensemble has at least one member; got ensemble={count}. 5 to 10 are usual.")
    generator = torch.Generator().manual_seed(seed)
    return [seed, *(int(torch.randint(2**63 - 1, (), generator=generator)) for _ in range(count - 1))]


def combine(maps: Sequence[np.ndarray], *, affine: bool) -> Estimate:
    """Median and spread of the members' maps, all of one shape; aligned by scale and shift before if `affine`."""
    members = np.stack(maps).astype(np.float32)
    if affine:
        members = np.clip(align(members), 0.0, 1.0)
    median = np.median(members, axis=0)
    spread = np.median(np.abs(members - median), axis=0)
    return Estimate(median, spread.mean(axis=-1) if spread.ndim == 3 else spread)


def align(members: np.ndarray) -> np.ndarray:
    """Members (K, ...) brought to a common scale and shift, by least squares with the first, then with the median.

    Fitted is member = scale * reference + shift: what is a member's own error does not change its scale, and stays to
    be seen as spread. (The other way round, the less a member has to do with the reference, the flatter it becomes,
    and members that have nothing in common seem to agree.) In the end all are moved together to where their median fits
    the members as they came best. Members without anything in common are returned as they came.
    """
    flat = members.reshape(len(members), -1).astype(np.float64)
    centred = flat - flat.mean(axis=1, keepdims=True)
    deviations = np.maximum(centred.std(axis=1), 1e-9)
    reference, aligned = flat[0], flat
    for _ in range(ALIGNMENTS):
        deviation = max(reference.std(), 1e-9)
        correlations = (centred * (reference - reference.mean())).mean(axis=1) / (deviations * deviation)
        scales = np.maximum(correlations, MIN_CORRELATION) * deviations / deviation
        aligned = reference.mean() + centred / scales[:, None]
        reference = np.median(aligned, axis=0)
    slope = (centred.mean(axis=0) * (reference - reference.mean())).mean() / max(reference.var(), 1e-18)
    if slope <= 0:
        return members
    return (flat.mean() + slope * (aligned - reference.mean())).reshape(members.shape).astype(members.dtype)
