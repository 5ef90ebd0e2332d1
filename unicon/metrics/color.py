"""Similarity of the colors of two images, regardless of position.

Source: Swain and Ballard, "Color indexing" (https://doi.org/10.1007/BF00130487): intersection of color histograms.
Tested in tests/unicon/metrics/test_metrics.py.
"""

from __future__ import annotations

import numpy as np

BINS = 8
"""Number of bins of each color channel."""


def color_likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection of the color histograms of two images: 1 for the same colors, 0 for no common color.

    Args:
        one: (H, W, 3) uint8.
        other: (H, W, 3) uint8, of any size.

    Raises:
        ValueError: An image has another type or shape.
    """
    return float(np.minimum(_histogram(one), _histogram(other)).sum())


def _histogram(image: np.ndarray) -> np.ndarray:
    """Fraction of the pixels in each bin, (BINS**3,)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ValueError(f"an image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    red, green, blue = (image.reshape(-1, 3) // (256 // BINS)).astype(np.intp).T
    counts = np.bincount((red * BINS + green) * BINS + blue, minlength=BINS**3)
    return counts / counts.sum()
