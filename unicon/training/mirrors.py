"""What a mirror changes in a map beside its place: nothing in most kinds, colors of poses, x of normals. No torch.

Shapes: H W pixels.

Tested in tests/unicon/training/test_views.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unicon.condition_kinds import CONDITION_KINDS
from unicon.pose_mirror import swap_sides


def negate_x(normals: np.ndarray) -> np.ndarray:
    """Normals (H, W, 3) uint8 whose first channel is x, with x negated. Pixels that are black have no normal."""
    turned = normals.copy()
    turned[..., 0] = 255 - normals[..., 0]
    return np.where(normals.any(-1, keepdims=True), turned, normals)


RECOLORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {"pose": swap_sides, "normal": negate_x}
"""Kind -> the values (H, W, 3) uint8 that a mirrored map has, before they change places."""


def can_mirror(kind: str) -> bool:
    """Whether mirrored maps of a kind are known. Those of kinds without an entry in the registry are not."""
    return kind in RECOLORED or (kind in CONDITION_KINDS and CONDITION_KINDS[kind].mirrors)
