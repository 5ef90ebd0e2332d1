"""Drawing a scene from a seed: a room or yard, solids, textures, lights and a camera.

A scene is a value. The same (seed, index) gives the same scene on every machine.

Tested in tests/unicon/scenes/test_render.py and tests/unicon/scenes/test_mannequin.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from unicon.scenes.geometry import Box, Cone, Cylinder, Solid, Sphere
from unicon.scenes.mannequin import sample_mannequin
from unicon.scenes.textures import COLORS, PATTERNS, Texture

ROOM, YARD = "room", "yard"
MANNEQUIN_FRACTION = 0.6
"""Fraction of the scenes in which a mannequin is placed if it fits."""


@dataclass(frozen=True)
class Thing:
    """A solid with its place and texture."""

    name: str
    """The word used in captions: box, ball, cylinder, cone, mannequin."""
    solid: Solid
    rotation: np.ndarray
    """(3, 3), whose columns are the solid's axes in the world."""
    position_m: np.ndarray
    """(3,) center in the world."""
    texture: Texture


@dataclass(frozen=True)
class Light:
    """A point light."""

    position_m: np.ndarray
    color: np.ndarray
    """(3,) linear RGB intensity. The falloff with distance is in `unicon.scenes.render`."""
    casts_shadow: bool


@dataclass(frozen=True)
class Camera:
    """A pinhole camera."""

    position_m: np.ndarray
    rotation: np.ndarray
    """(3, 3), whose columns are the directions right, forward and up in the world."""
    field_of_view_deg: float
    """Field of view along the longer side of the image."""


@dataclass(frozen=True)
class Scene:
    """Everything the renderer needs."""

    place: str
    """`room` (closed, with a ceiling) or `yard` (low walls under a sky)."""
    shell: Box
    """The walls, floor and ceiling, centered at the origin."""
    wall_height_m: float
    """Height above the floor from which a yard shows the sky."""
    shell_textures: tuple[Texture, Texture, Texture]
    """Textures of walls, floor and ceiling."""
    things: tuple[Thing, ...]
    lights: tuple[Light, ...]
    ambient: np.ndarray
    sky: np.ndarray
    camera: Camera
    haze_per_m: float = 0.0
    """Density of the haze: a surface keeps exp(-haze_per_m * distance) of its color."""
    haze_color: tuple[float, float, float] = (0.7, 0.7, 0.7)
    """Linear RGB of the haze."""


def sample_scene(seed: int, index: int, view: int = 0) -> Scene:
    """Draw scene number `index` of the endless sequence of a seed.

    Args:
        seed: The sequence, 0 or more.
        index: The position in the sequence, 0 or more.
        view: 0 for the scene's own camera. Any other number gives the same scene from nearby, like another frame of a
            film.
    """
    scene = _sample_scene(seed, index)
    if view == 0:
        return scene
    return replace(scene, camera=_moved_camera(np.random.default_rng([seed, index, view]), scene))


def _sample_scene(seed: int, index: int) -> Scene:
    rng = np.random.default_rng([seed, index])
    place = ROOM if rng.random() < 0.7 else YARD
    half = np.array([rng.uniform(2.0, 4.0), rng.uniform(2.0, 4.0), rng.uniform(1.2, 1.7)])
    wall_height_m = 2 * half[2] if place == ROOM else rng.uniform(0.8, 2.2)
    camera = _sample_camera(rng, half)
    figures = [_sample_figure(rng, camera, half)] if rng.random() < MANNEQUIN_FRACTION else []
    things = (*figures, *(_sample_thing(rng, camera, half) for _ in range(rng.integers(2, 7))))
    shell_textures = tuple(_sample_texture(rng, scale_m=(0.4, 1.2)) for _ in range(3))
    tint = rng.uniform(0.6, 1.0, 3)
    return Scene(
        place=place,
        shell=Box(tuple(half.tolist())),
        wall_height_m=float(wall_height_m),
        shell_textures=shell_textures,  # type: ignore[arg-type]
        things=tuple(thing for thing in things if thing is not None),
        lights=_sample_lights(rng, half),
        ambient=0.28 * tint,
        sky=np.array([0.45, 0.65, 0.95]) * rng.uniform(0.7, 1.0) + rng.uniform(0, 0.1, 3),
        camera=camera,
        haze_per_m=float(rng.uniform(0.12, 0.3)),
        haze_color=tuple((rng.uniform(0.5, 0.9) * np.array([1.0, 1.0, 1.0 + rng.uniform(0, 0.15)])).tolist()),
    )


def _sample_camera(rng: np.random.Generator, half: np.ndarray) -> Camera:
    """Draw a camera near a wall at eye height that looks across the floor, with some pitch and roll."""
    heading = rng.uniform(0, 2 * np.pi)
    forward = np.array([np.sin(heading), np.cos(heading)])
    room = half[:2] - 0.7
    spot = np.clip(-forward * rng.uniform(1.0, 4.0) + rng.normal(0, 0.5, 2), -room, room)
    height = rng.uniform(0.6, min(2.1, 2 * half[2] - 0.5)) - half[2]
    yaw = heading + rng.normal(0, 0.35)
    pitch, roll = np.deg2rad(rng.normal(-8, 10)), np.deg2rad(rng.normal(0, 6))
    look = np.array([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.cos(yaw), -np.sin(yaw), 0.0])
    up = np.cross(right, look)
    right, up = np.cos(roll) * right + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * right
    return Camera(np.array([*spot, height]), np.stack([right, look, up], 1), rng.uniform(55, 75))


def _moved_camera(rng: np.random.Generator, scene: Scene) -> Camera:
    """The scene's camera, moved by about half a meter and turned a little, outside of things and walls."""
    camera, half = scene.camera, np.array(scene.shell.half_size_m)
    turned = _turn(np.deg2rad(rng.choice([-1, 1]) * rng.uniform(5, 25))) @ camera.rotation
    for _ in range(8):
        position = camera.position_m + rng.normal(0, [0.4, 0.4, 0.12])
        position = np.clip(position, 0.3 - half, half - 0.3)
        if all(np.linalg.norm(position - thing.position_m) > thing.solid.bounding_radius_m for thing in scene.things):
            return Camera(position, turned, camera.field_of_view_deg)
    return Camera(camera.position_m, turned, camera.field_of_view_deg)


def _sample_thing(rng: np.random.Generator, camera: Camera, half: np.ndarray) -> Thing | None:
    """Draw a solid in front of the camera, standing on the floor or hanging; None if it does not fit."""
    name, solid = _sample_solid(rng, size_m=rng.uniform(0.2, 0.65))
    bearing = np.deg2rad(rng.uniform(-0.45, 0.45) * camera.field_of_view_deg)
    reach = solid.bounding_radius_m + rng.uniform(1.1, 4.5)
    spot = camera.position_m[:2] + reach * _heading(camera, bearing)
    if np.any(np.abs(spot) > half[:2] - 0.6 * solid.bounding_radius_m):
        return None
    lift = rng.uniform(0.2, 1.4) if rng.random() < 0.25 else 0.0
    center_z = -half[2] + solid.half_height_m + lift
    if center_z + solid.half_height_m > half[2]:
        return None
    return Thing(
        name,
        solid,
        _turn(rng.uniform(0, 2 * np.pi)),
        np.array([*spot, center_z]),
        _sample_texture(rng, scale_m=(0.12, 0.4)),
    )


def _sample_figure(rng: np.random.Generator, camera: Camera, half: np.ndarray) -> Thing | None:
    """Draw a mannequin in view, turned toward the camera; None if it fits at none of a few places."""
    solid = sample_mannequin(rng, rng.uniform(1.1, 1.8))
    facing = np.arctan2(*-camera.rotation[:2, 1]) + np.deg2rad(rng.uniform(-60, 60))
    texture = _sample_texture(rng, scale_m=(0.12, 0.4))
    for _ in range(6):
        bearing = np.deg2rad(rng.uniform(-0.3, 0.3) * camera.field_of_view_deg)
        spot = camera.position_m[:2] + rng.uniform(1.6, 3.2) * _heading(camera, bearing)
        if np.all(np.abs(spot) < half[:2] - 0.35) and 1.1 * solid.height_m < 2 * half[2]:
            place = np.array([*spot, solid.half_height_m - half[2]])
            return Thing("mannequin", solid, _turn(-facing), place, texture)
    return None


def _heading(camera: Camera, bearing: float) -> np.ndarray:
    """Horizontal direction (2,) at an angle from the camera's direction, in radians, positive to the right."""
    forward, right = camera.rotation[:2, 1], camera.rotation[:2, 0]
    return np.cos(bearing) * forward + np.sin(bearing) * right


def _sample_solid(rng: np.random.Generator, size_m: float) -> tuple[str, Solid]:
    kind = rng.integers(4)
    if kind == 0:
        return "box", Box(tuple((size_m * rng.uniform([0.5, 0.5, 0.4], [1.0, 1.0, 1.6])).tolist()))
    if kind == 1:
        return "ball", Sphere(size_m)
    if kind == 2:
        return "cylinder", Cylinder(size_m * rng.uniform(0.4, 0.8), size_m * rng.uniform(0.6, 1.6))
    return "cone", Cone(size_m * rng.uniform(0.6, 1.0), size_m * rng.uniform(0.8, 1.5))


def _turn(angle: float) -> np.ndarray:
    """A rotation about the vertical axis, so that solids stand on their bases."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _sample_texture(rng: np.random.Generator, scale_m: tuple[float, float]) -> Texture:
    color, second = rng.choice(len(COLORS), 2, replace=False)
    names = list(COLORS)
    pattern = PATTERNS[rng.choice(len(PATTERNS), p=[0.4, 0.15, 0.15, 0.1, 0.1, 0.1])]
    jitter = rng.normal(0, 0.03, 3)
    return Texture(
        color=names[color],
        pattern=pattern,
        first=np.clip(np.array(COLORS[names[color]]) + jitter, 0.02, 1),
        second=np.clip(0.55 * np.array(COLORS[names[color]]) + 0.45 * np.array(COLORS[names[second]]), 0.02, 1),
        scale_m=float(rng.uniform(*scale_m)),
        phase=rng.uniform(0, 1, 3),
    )


def _sample_lights(rng: np.random.Generator, half: np.ndarray) -> tuple[Light, ...]:
    """Draw a key light under the ceiling that casts shadows, and a weak colored fill light without shadows."""
    key_position = np.array([*(rng.uniform(-0.6, 0.6, 2) * half[:2]), half[2] - rng.uniform(0.05, 0.4)])
    fill_position = np.array([*(rng.uniform(-0.9, 0.9, 2) * half[:2]), rng.uniform(-0.2, 0.8) * half[2]])
    warmth = rng.uniform(-0.15, 0.15)
    key = rng.uniform(0.8, 1.2) * np.array([1 + warmth, 1.0, 1 - warmth])
    return Light(key_position, key, True), Light(fill_position, rng.uniform(0.05, 0.4, 3), False)
