"""Ensembles: the median of several estimates of one image, and how far they disagree.

Source: test-time ensembling, arXiv 2312.02145 (Marigold), section 3.4. Here the scales and shifts come from alternating
least squares against the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unicon.images import resize_map

ALIGNMENTS = 5
"""Number of alternations of aligning and taking the median."""
MIN_CORRELATION = 0.5
"""Members that correlate less with the reference are scaled as if they had this correlation."""


@dataclass(frozen=True)
class Estimate:
    """The estimate of an ensemble."""

    map: np.ndarray
    """The members' median, float32 (H, W) or (H, W, 3) in [0, 1]."""
    spread: np.ndarray
    """Median absolute deviation of the aligned members at every pixel, averaged over the channels, in the units of the
    map; float32 (H, W), 0 to 0.5."""

    @property
    def confidence(self) -> float:
        """1 - 2 * mean spread, in [0, 1]: 1 where the members agree, 0 where half of them are 0 and half are 1."""
        return float(np.clip(1.0 - 2.0 * self.spread.mean(dtype=np.float64), 0.0, 1.0))

    def resized(self, size: tuple[int, int]) -> Estimate:
        """The estimate at `size` = (width, height)."""
        return Estimate(resize_map(self.map, size), resize_map(self.spread, size))


def member_seeds(seed: int, count: int) -> list[int]:
    """Seeds of an ensemble: the row's own, then others derived from it. A smaller ensemble has the first of them.

    Raises:
        ValueError: `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"An ensemble has at least one member; got ensemble_size={count}. 5 to 10 are usual.")
    generator = torch.Generator().manual_seed(seed)
    return [seed, *(int(torch.randint(2**63 - 1, (), generator=generator)) for _ in range(count - 1))]


def combine(maps: Sequence[np.ndarray], *, affine: bool) -> Estimate:
    """Median and spread of the members' maps, all of one shape. If `affine`, scale and shift are aligned first."""
    members = np.stack(maps).astype(np.float32)
    if affine:
        members = np.clip(align(members), 0.0, 1.0)
    median = np.median(members, axis=0)
    spread = np.median(np.abs(members - median), axis=0)
    return Estimate(median, spread.mean(axis=-1) if spread.ndim == 3 else spread)


def align(members: np.ndarray) -> np.ndarray:
    """Align members (K, ...) in scale and shift, by least squares against the first member, then against the median.

    The fit is member = scale * reference + shift, so that the error of a member does not change its scale and remains
    visible as spread. With the opposite fit, a member would become flatter the less it has in common with the
    reference, and unrelated members would seem to agree. In the end all members are moved together to where their
    median fits the original members best. Unrelated members are returned as they are.
    """
    flat = members.reshape(len(members), -1).astype(np.float64)
    centered = flat - flat.mean(axis=1, keepdims=True)
    deviations = np.maximum(centered.std(axis=1), 1e-9)
    reference, aligned = flat[0], flat
    for _ in range(ALIGNMENTS):
        deviation = max(reference.std(), 1e-9)
        correlations = (centered * (reference - reference.mean())).mean(axis=1) / (deviations * deviation)
        scales = np.maximum(correlations, MIN_CORRELATION) * deviations / deviation
        aligned = reference.mean() + centered / scales[:, None]
        reference = np.median(aligned, axis=0)
    slope = (centered.mean(axis=0) * (reference - reference.mean())).mean() / max(reference.var(), 1e-18)
    if slope <= 0:
        return members
    return (flat.mean() + slope * (aligned - reference.mean())).reshape(members.shape).astype(members.dtype)
