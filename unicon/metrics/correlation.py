"""Similarity of two maps, regardless of scale and shift.

Tested in tests/unicon/metrics/test_metrics.py.
"""

from __future__ import annotations

import numpy as np


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of all values of two arrays: 1 for equal, 0 for unrelated or constant, -1 for opposite.

    Raises:
        ValueError: The shapes differ.
    """
    if one.shape != other.shape:
        raise ValueError(f"maps to correlate must have one shape, got {one.shape} and {other.shape}: resize one")
    first, second = (values.astype(np.float64).ravel() for values in (one, other))
    first, second = first - first.mean(), second - second.mean()
    spread = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / spread) if spread > 1e-12 * first.size else 0.0
