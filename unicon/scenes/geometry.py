"""Ray intersection with the solids of a scene.

World axes: x right, y forward, z up. Lengths are in meters. A miss has distance `inf`.

Shapes: N rays; vectors are stored component first, (3, N) float32, so that operations run over contiguous rays.

Tested in tests/unicon/scenes/test_render.py and tests/unicon/scenes/test_mannequin.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

EPSILON_M = 1e-3
"""Hits nearer than this to the start of a ray are the surface that the ray leaves."""


class Hits(NamedTuple):
    """Hits of rays on one solid."""

    distance_m: np.ndarray
    """(N,) distance along the ray; `inf` for a miss."""
    normal: np.ndarray
    """(3, N) outward unit normal in the solid's frame; undefined for a miss."""
    face: np.ndarray
    """(N,) int8 number of the smooth surface that was hit. A box has six, a cylinder three."""


class Solid(Protocol):
    """A convex solid centered at the origin of its own frame."""

    @property
    def bounding_radius_m(self) -> float: ...

    @property
    def half_height_m(self) -> float: ...

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Hits: ...


def _safe(direction: np.ndarray) -> np.ndarray:
    """The direction with exact zeros replaced, so that slab divisions stay finite."""
    return np.where(np.abs(direction) < 1e-9, np.float32(1e-9), direction)


def _quadratic(a: np.ndarray, half_b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both roots of `a t^2 + 2 half_b t + c`; `inf` if there are none."""
    discriminant = half_b * half_b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    a = _safe(a)
    near, far = (-half_b - root) / a, (-half_b + root) / a
    missed = discriminant <= 0
    return np.where(missed, np.inf, near), np.where(missed, np.inf, far)


def _nearest(candidates: list[tuple[np.ndarray, np.ndarray, int]], normals: list[np.ndarray]) -> Hits:
    """The nearest valid candidate of each ray. A candidate is (distance, valid, face)."""
    distances = np.stack([np.where(ok & (t > EPSILON_M), t, np.inf) for t, ok, _ in candidates])
    best = distances.argmin(0)
    faces = np.array([face for _, _, face in candidates], dtype=np.int8)
    normal = np.take_along_axis(np.stack(normals), best[None, None], 0)[0]
    return Hits(np.take_along_axis(distances, best[None], 0)[0], normal.astype(np.float32), faces[best])


@dataclass(frozen=True)
class Sphere:
    """A ball."""

    radius_m: float

    @property
    def bounding_radius_m(self) -> float:
        return self.radius_m

    @property
    def half_height_m(self) -> float:
        return self.radius_m

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Hits:
        near, far = _quadratic(
            (direction * direction).sum(0), (origin * direction).sum(0), (origin * origin).sum(0) - self.radius_m**2
        )
        distance = np.where(near > EPSILON_M, near, np.where(far > EPSILON_M, far, np.inf))
        reach = np.where(np.isfinite(distance), distance, 0)
        return Hits(distance, (origin + reach * direction) / self.radius_m, np.zeros(distance.shape, np.int8))


@dataclass(frozen=True)
class Box:
    """A cuboid, hit from outside, or from inside as the walls of a room."""

    half_size_m: tuple[float, float, float]

    @property
    def bounding_radius_m(self) -> float:
        return float(np.linalg.norm(self.half_size_m))

    @property
    def half_height_m(self) -> float:
        return self.half_size_m[2]

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Hits:
        half = np.array(self.half_size_m, dtype=np.float32)[:, None]
        inverse = 1 / _safe(direction)
        middle, reach = -origin * inverse, half * np.abs(inverse)
        entry, leave = (middle - reach).max(0), (middle + reach).min(0)
        from_outside = entry > EPSILON_M
        distance = np.where(from_outside, entry, leave)
        distance = np.where((entry < leave) & (distance > EPSILON_M), distance, np.inf)
        axis = np.where(from_outside, (middle - reach).argmax(0), (middle + reach).argmin(0))
        heading = np.take_along_axis(direction, axis[None], 0)[0]
        side = np.where(heading > 0, -1, 1) * np.where(from_outside, 1, -1)
        normal = (np.arange(3)[:, None] == axis) * side.astype(np.float32)
        return Hits(distance, normal, (2 * axis + (side > 0)).astype(np.int8))


@dataclass(frozen=True)
class _Round:
    """A solid of revolution about the z axis, from -half_height to +half_height, no wider than its radius."""

    radius_m: float
    half_height_m: float

    @property
    def bounding_radius_m(self) -> float:
        return float(np.hypot(self.radius_m, self.half_height_m))

    def _cap(self, origin: np.ndarray, direction: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(distance (N,), whether the ray hits it, normal (3, N)) of the flat top (sign 1) or bottom (sign -1)."""
        distance = (sign * self.half_height_m - origin[2]) / _safe(direction[2])
        point = origin[:2] + distance * direction[:2]
        normal = np.zeros(direction.shape, np.float32)
        normal[2] = sign
        return distance, (point * point).sum(0) <= self.radius_m**2, normal


@dataclass(frozen=True)
class Cylinder(_Round):
    """A capped cylinder about the z axis."""

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Hits:
        flat_o, flat_d = origin[:2], direction[:2]
        side, _ = _quadratic(
            (flat_d * flat_d).sum(0), (flat_o * flat_d).sum(0), (flat_o * flat_o).sum(0) - self.radius_m**2
        )
        finite = np.where(np.isfinite(side), side, 0)
        point = origin + finite * direction
        candidates = [(side, np.abs(point[2]) <= self.half_height_m, 0)]
        normals = [np.stack([point[0] / self.radius_m, point[1] / self.radius_m, np.zeros_like(finite)])]
        for face, sign in ((1, 1), (2, -1)):
            distance, inside, normal = self._cap(origin, direction, sign)
            candidates.append((distance, inside, face))
            normals.append(normal)
        return _nearest(candidates, normals)


@dataclass(frozen=True)
class Cone(_Round):
    """A cone about the z axis, with its tip at +half_height and its base at -half_height."""

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Hits:
        slope = self.radius_m / (2 * self.half_height_m)
        from_tip = origin - np.array([[0], [0], [self.half_height_m]], dtype=np.float32)
        weight = np.array([[1], [1], [-(slope**2)]], dtype=np.float32)
        roots = _quadratic(
            (weight * direction * direction).sum(0),
            (weight * from_tip * direction).sum(0),
            (weight * from_tip * from_tip).sum(0),
        )
        candidates, normals = [], []
        for root in roots:
            finite = np.where(np.isfinite(root), root, 0)
            point = from_tip + finite * direction
            candidates.append((root, (point[2] <= 0) & (point[2] >= -2 * self.half_height_m), 0))
            normal = np.stack([point[0], point[1], -(slope**2) * point[2]])
            normals.append(normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-9))
        distance, inside, normal = self._cap(origin, direction, -1)
        candidates.append((distance, inside, 1))
        normals.append(normal)
        return _nearest(candidates, normals)
