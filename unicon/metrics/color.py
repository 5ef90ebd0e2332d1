"""How alike the colours of two pictures are, wherever they lie.

Source: Swain and Ballard, "Color indexing" (https://doi.org/10.1007/BF00130487): intersection of colour histograms.
"""

from __future__ import annotations

import numpy as np

BINS = 8
"""Of each of red, green and blue."""


def colour_likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels of one picture that find one of their colour in the other: 1 the same colours, 0 none.

    Args:
        one, other: (H, W, 3) uint8, of any sizes.

    Raises:
        ValueError: another type or shape.
    """
    return float(np.minimum(_histogram(one), _histogram(other)).sum())


def _histogram(picture: np.ndarray) -> np.ndarray:
    """(BINS**3,) shares of the pixels."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or not picture.size:
        raise ValueError(f"a picture must be uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
    red, green, blue = (picture.reshape(-1, 3) // (256 // BINS)).astype(np.intp).T
    counts = np.bincount((red * BINS + green) * BINS + blue, minlength=BINS**3)
    return counts / counts.sum()
