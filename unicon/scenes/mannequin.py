"""Posed mannequins made of capsules, with the exact joints of their skeleton.

In its own frame, a mannequin faces +y, its right hand is at +x, and z is up. The origin is between its hips.

Shapes: J = 14 joints in the order of `unicon.pose.JOINTS`, N rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unicon.pose import JOINTS
from unicon.scenes.geometry import EPSILON_M, Hits

JOINT = {name: index for index, name in enumerate(JOINTS)}
SIDES = (("right", 1.0), ("left", -1.0))


@dataclass(frozen=True)
class Capsule:
    """All points within a radius of a segment."""

    start_m: np.ndarray
    end_m: np.ndarray
    radius_m: float

    @property
    def ends_m(self) -> tuple[np.ndarray, np.ndarray]:
        return self.start_m, self.end_m

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(distance (N,), `inf` for a miss; outward unit normal (3, N)) of the first hits from outside."""
        start, axis = (x.astype(np.float32)[:, None] for x in (self.start_m, self.end_m - self.start_m))
        from_start = origin - start
        axis_axis = float((axis * axis).sum())
        axis_ray, axis_start = (axis * direction).sum(0), (axis * from_start).sum(0)
        ray_start = (direction * from_start).sum(0)
        a = axis_axis - axis_ray * axis_ray
        half_b = axis_axis * ray_start - axis_start * axis_ray
        c = axis_axis * ((from_start * from_start).sum(0) - self.radius_m**2) - axis_start * axis_start
        discriminant = half_b * half_b - a * c
        distance = (-half_b - np.sqrt(np.maximum(discriminant, 0))) / np.maximum(a, 1e-9)
        along = axis_start + distance * axis_ray
        on_side = (discriminant > 0) & (along > 0) & (along < axis_axis) & (distance > EPSILON_M)
        best = np.where(on_side, distance, np.inf)
        for center in (from_start, from_start - axis):
            best = np.minimum(best, _ball(center, direction, self.radius_m))
        reach = np.where(np.isfinite(best), best, 0)
        point = from_start + reach * direction
        nearest = np.clip((axis * point).sum(0) / axis_axis, 0, 1) * axis
        return best, (point - nearest) / self.radius_m


def _ball(from_center: np.ndarray, direction: np.ndarray, radius_m: float) -> np.ndarray:
    """Distance (N,) to a ball from outside; `inf` for a miss."""
    half_b = (from_center * direction).sum(0)
    discriminant = half_b * half_b - (from_center * from_center).sum(0) + radius_m**2
    distance = -half_b - np.sqrt(np.maximum(discriminant, 0))
    return np.where((discriminant > 0) & (distance > EPSILON_M), distance, np.inf)


@dataclass(frozen=True)
class Mannequin:
    """A standing figure whose faces are numbered by body part."""

    joints_m: np.ndarray
    """(J, 3) in the mannequin's frame."""
    height_m: float
    """Height of the figure when it stands upright. It determines the thickness of the parts."""

    @cached_property
    def parts(self) -> tuple[Capsule, ...]:
        """Trunk, head, upper and lower arms, thighs, shanks and feet."""
        joints, height = self.joints_m, self.height_m
        hips = (joints[JOINT["right_hip"]] + joints[JOINT["left_hip"]]) / 2
        neck, nose = joints[JOINT["neck"]], joints[JOINT["nose"]]
        head = nose - np.array([0, 0.07 * height, 0])
        parts = [Capsule(neck, hips, 0.07 * height), Capsule(neck, head, 0.04 * height)]
        parts.append(Capsule(head, head + np.array([0, 0, 0.02 * height]), 0.075 * height))
        for side, _ in SIDES:
            shoulder, elbow, wrist, hip, knee, ankle = (
                joints[JOINT[f"{side}_{name}"]] for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
            )
            foot = ankle + np.array([0, 0.1 * height, 0])
            parts += [
                Capsule(shoulder, hip, 0.06 * height),
                Capsule(shoulder, elbow, 0.042 * height),
                Capsule(elbow, wrist, 0.035 * height),
                Capsule(hip, knee, 0.055 * height),
                Capsule(knee, ankle, 0.042 * height),
                Capsule(ankle, foot, 0.03 * height),
            ]
        return tuple(parts)

    @property
    def bounding_radius_m(self) -> float:
        return max(float(np.linalg.norm(end)) + part.radius_m for part in self.parts for end in part.ends_m)

    @property
    def half_height_m(self) -> float:
        return -min(float(end[2]) - part.radius_m for part in self.parts for end in part.ends_m)

    def intersect(self, origin: np.ndarray, direction: np.ndarray) -> Hits:
        """Implement `geometry.Solid`."""
        distance = np.full(direction.shape[1], np.inf, np.float32)
        normal = np.zeros(direction.shape, np.float32)
        face = np.zeros(direction.shape[1], np.int8)
        for index, part in enumerate(self.parts):
            found, outward = part.intersect(origin, direction)
            nearer = found < distance
            distance[nearer], normal[:, nearer], face[nearer] = found[nearer], outward[:, nearer], index
        return Hits(distance, normal, face)


def sample_mannequin(rng: np.random.Generator, height_m: float) -> Mannequin:
    """Draw a standing, walking or gesturing figure.

    Args:
        rng: The random generator.
        height_m: Height of the figure when it stands upright.
    """
    joints = np.zeros((len(JOINTS), 3))
    joints[JOINT["neck"]] = [0, 0, 0.32]
    joints[JOINT["nose"]] = [0, 0.07, 0.43]
    for side, sign in SIDES:
        joints[JOINT[f"{side}_shoulder"]] = [0.115 * sign, 0, 0.3]
        joints[JOINT[f"{side}_hip"]] = [0.06 * sign, 0, 0]
    trunk = [JOINT[name] for name in ("neck", "nose", "right_shoulder", "left_shoulder")]
    lean = _tilt(np.deg2rad(rng.normal(-3, 7)), np.deg2rad(rng.normal(0, 6)))
    joints[trunk] = joints[trunk] @ lean.T
    for side, sign in SIDES:
        shoulder, hip = joints[JOINT[f"{side}_shoulder"]], joints[JOINT[f"{side}_hip"]]
        upper, lower = _arm(rng, sign)
        joints[JOINT[f"{side}_elbow"]] = shoulder + 0.17 * upper
        joints[JOINT[f"{side}_wrist"]] = shoulder + 0.17 * upper + 0.16 * lower
        thigh, shank = _leg(rng, sign)
        joints[JOINT[f"{side}_knee"]] = hip + 0.25 * thigh
        joints[JOINT[f"{side}_ankle"]] = hip + 0.25 * thigh + 0.25 * shank
    return Mannequin(joints * height_m, height_m)


def _arm(rng: np.random.Generator, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw unit directions of an upper and a lower arm."""
    abduction, swing = np.deg2rad(rng.uniform(5, 140)), np.deg2rad(rng.uniform(-30, 60))
    bend, turn = np.deg2rad(rng.uniform(0, 110)), rng.uniform(0, 1)
    upper = np.array([side * np.sin(abduction), np.cos(abduction) * np.sin(swing), -np.cos(abduction) * np.cos(swing)])
    forward_up = np.array([-side * 0.3, turn, 1 - turn])
    return upper, _bent(upper, forward_up, bend)


def _leg(rng: np.random.Generator, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw unit directions of a thigh and a shank."""
    abduction, swing = np.deg2rad(rng.uniform(0, 24)), np.deg2rad(rng.uniform(-25, 40))
    bend = np.deg2rad(rng.uniform(0, 45) if swing > 0 else rng.uniform(0, 25))
    thigh = np.array([side * np.sin(abduction), np.cos(abduction) * np.sin(swing), -np.cos(abduction) * np.cos(swing)])
    return thigh, _bent(thigh, np.array([0.0, -1.0, 0.0]), bend)


def _bent(direction: np.ndarray, toward: np.ndarray, angle: float) -> np.ndarray:
    """A unit direction turned by an angle toward another."""
    across = toward - (toward @ direction) * direction
    across /= max(float(np.linalg.norm(across)), 1e-6)
    return np.cos(angle) * direction + np.sin(angle) * across


def _tilt(pitch: float, roll: float) -> np.ndarray:
    """Rotation by a pitch about x, then a roll about y."""
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    return about_y @ about_x
