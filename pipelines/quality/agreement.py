"""The agreement of the maps that two engines made of one image.

Tested in tests/pipelines/quality/test_agreement.py.
"""

import numpy as np
from PIL import Image
from scipy import stats

from unicon.condition_kinds import CONDITION_KINDS
from unicon.metrics.correlation import correlation

COMPARED_PX = 128
"""Longer side at which maps are compared, so that edges a pixel apart still agree."""


def agreement(one: np.ndarray, other: np.ndarray, kind: str) -> float:
    """Return how far two maps agree: 1 for the same content, about 0 for unrelated maps, NaN if one is constant.

    Depth is compared by Spearman's rank correlation, which does not depend on scale and shift, nor on whether the
    values are depths or inverse depths, as long as nearer is higher. Normals are compared by the mean cosine of the
    angle between them, all other kinds by Pearson's correlation.

    Args:
        one: A map with values in [0, 1], (H, W) or (H, W, 3), as `unicon.conditions.CONDITIONS` decodes it.
        other: A map with the same number of channels, of any size.
        kind: One of the names in `CONDITION_KINDS`.

    Raises:
        ValueError: The maps have different numbers of channels.
    """
    if one.ndim != other.ndim or one.shape[2:] != other.shape[2:]:
        raise ValueError(f"maps to compare must have the same channels; got the shapes {one.shape} and {other.shape}.")
    scale = min(1.0, COMPARED_PX / max(one.shape[:2]))
    size_px = max(1, round(one.shape[1] * scale)), max(1, round(one.shape[0] * scale))
    first, second = scaled(one, size_px), scaled(other, size_px)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    if kind == "normal":
        return float((normals(first) * normals(second)).sum(-1).mean())
    if CONDITION_KINDS[kind].is_affine:
        return correlation(*(stats.rankdata(values, axis=None) for values in (first, second)))
    return correlation(first, second)


def scaled(values: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Return a map scaled to (width, height), bilinearly, as float32."""
    channels = np.moveaxis(np.atleast_3d(values.astype(np.float32)), -1, 0)
    resized = [np.asarray(Image.fromarray(each).resize(size_px, Image.Resampling.BILINEAR)) for each in channels]
    return np.stack(resized, axis=-1).reshape(size_px[1], size_px[0], *values.shape[2:])


def normals(encoded: np.ndarray) -> np.ndarray:
    """Return unit vectors (H, W, 3) of colors in [0, 1]; black, which stands for no normal, becomes (0, 0, 0)."""
    vectors = 2 * encoded - 1
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where((encoded.max(-1, keepdims=True) > 0) & (lengths > 0), vectors / np.maximum(lengths, 1e-6), 0)
