"""Procedural textures: a color at every point of a surface.

Shapes: N points, (3, N) float32.

Tested in tests/unicon/scenes/test_render.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.12, 0.10),
    "orange": (0.92, 0.48, 0.10),
    "yellow": (0.92, 0.82, 0.18),
    "green": (0.18, 0.60, 0.20),
    "teal": (0.10, 0.58, 0.56),
    "blue": (0.15, 0.28, 0.78),
    "purple": (0.48, 0.20, 0.66),
    "pink": (0.92, 0.50, 0.66),
    "brown": (0.45, 0.28, 0.16),
    "gray": (0.50, 0.50, 0.52),
    "white": (0.90, 0.90, 0.88),
    "black": (0.12, 0.12, 0.13),
}
PATTERNS = ("plain", "checkered", "striped", "dotted", "tiled", "marbled")


@dataclass(frozen=True)
class Texture:
    """Two colors and the pattern that mixes them."""

    color: str
    """The word used in captions."""
    pattern: str
    first: np.ndarray
    """(3,) linear RGB of the base color."""
    second: np.ndarray
    """(3,) linear RGB of the pattern's other color."""
    scale_m: float
    """Size of one cell of the pattern."""
    phase: np.ndarray
    """(3,) shift of the pattern in cells."""

    def paint(self, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Colors (3, N) at surface points (3, N) with normals (3, N), both in the surface's frame."""
        if self.pattern == "plain":
            return np.repeat(self.first.astype(np.float32)[:, None], point.shape[1], 1)
        u, v = self._plane(point, normal)
        amount = _AMOUNTS[self.pattern](u, v).astype(np.float32)
        return (self.first[:, None] * (1 - amount) + self.second[:, None] * amount).astype(np.float32)

    def _plane(self, point: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cell coordinates on the axis plane that is nearest to perpendicular to the normal."""
        cells = point / np.float32(self.scale_m) + self.phase.astype(np.float32)[:, None]
        axis = np.abs(normal).argmax(0)
        return np.where(axis == 0, cells[1], cells[0]), np.where(axis == 2, cells[1], cells[2])


def _checkered(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.floor(u) + np.floor(v)) % 2


def _striped(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u % 1) > 0.5


def _dotted(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.3


def _tiled(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)) > 0.45


def _marbled(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(3 * u + 2 * np.sin(2 * v + np.sin(3 * u)))


_AMOUNTS = {"checkered": _checkered, "striped": _striped, "dotted": _dotted, "tiled": _tiled, "marbled": _marbled}
