"""The exact outputs of the renderer agree with closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unicon.scenes import render
from unicon.scenes.geometry import Box, Cone, Cylinder, Solid, Sphere
from unicon.scenes.layout import ROOM, YARD, Camera, Light, Scene, Thing, sample_scene
from unicon.scenes.render import SHELL, SKY
from unicon.scenes.textures import Texture

FIELD_OF_VIEW_DEG = 60.0
HALF_ROOM_M = (3.0, 5.0, 1.5)
CAMERA_M = (0.0, -4.0, 0.0)
"""Looks along +y at the wall 9 m away."""
LEVEL = np.eye(3)


def plain(color: str = "red", rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> Texture:
    return Texture(color, "plain", np.array(rgb), np.array(rgb), 1.0, np.zeros(3))


def thing(solid: Solid, position_m: tuple[float, float, float], name: str = "ball", color: str = "red") -> Thing:
    return Thing(name, solid, np.eye(3), np.array(position_m), plain(color))


def light(*position_m: float, shadow: bool = True) -> Light:
    return Light(np.array(position_m), np.ones(3), shadow)


def scene(*things: Thing, place: str = ROOM, rotation: np.ndarray = LEVEL, lights: tuple[Light, ...] = ()) -> Scene:
    """A room of 6 x 10 x 3 meters, or a yard with walls of one metre, seen by a level camera."""
    return Scene(
        place=place,
        shell=Box(HALF_ROOM_M),
        wall_height_m=3.0 if place == ROOM else 1.0,
        shell_textures=(plain("gray"), plain("green"), plain("white")),
        things=things,
        lights=lights,
        ambient=np.full(3, 0.2),
        sky=np.array([0.4, 0.6, 0.9]),
        camera=Camera(np.array(CAMERA_M), rotation, FIELD_OF_VIEW_DEG),
    )


def directions(width_px: int, height_px: int) -> np.ndarray:
    """(3, H, W) rays through the pixel center with a y component of one: depth along them is the y reached."""
    reach = np.tan(np.deg2rad(FIELD_OF_VIEW_DEG / 2)) / max(width_px, height_px)
    x = (2 * np.arange(width_px) + 1 - width_px) * reach
    z = -(2 * np.arange(height_px) + 1 - height_px) * reach
    x, z = np.meshgrid(x, z)
    return np.stack([x, np.ones_like(x), z])


def center(values: np.ndarray) -> np.ndarray:
    return values[values.shape[0] // 2, values.shape[1] // 2]


@pytest.mark.parametrize(("width_px", "height_px"), [(64, 64), (80, 48), (48, 80)])
def test_depth_of_an_empty_room(width_px: int, height_px: int) -> None:
    """A box seen from inside: the nearest of the planes ahead, along the optical axis."""
    rays = directions(width_px, height_px)
    to_side_m, to_end_m, to_floor_m = HALF_ROOM_M[0], HALF_ROOM_M[1] - CAMERA_M[1], HALF_ROOM_M[2]
    with np.errstate(divide="ignore"):
        expected = np.minimum(np.minimum(to_side_m / np.abs(rays[0]), to_floor_m / np.abs(rays[2])), to_end_m)
    found = render(scene(), width_px, height_px, supersampling=1)
    np.testing.assert_allclose(found.depth_m, expected, rtol=1e-5)
    assert found.depth_m.dtype == np.float32
    assert center(found.depth_m) == pytest.approx(9.0, rel=1e-6)
    assert (found.owner == SHELL).all()


@pytest.mark.parametrize(("distance_m", "radius_m"), [(2.0, 0.5), (5.0, 1.2)])
def test_depth_of_a_ball(distance_m: float, radius_m: float) -> None:
    """Roots of |t d - c|^2 = r^2 with the center c on the axis and d scaled to depth."""
    ball = thing(Sphere(radius_m), (0.0, CAMERA_M[1] + distance_m, 0.0))
    found = render(scene(ball), 64, 64, supersampling=1)
    squared = (directions(64, 64) ** 2).sum(0)
    discriminant = distance_m**2 - squared * (distance_m**2 - radius_m**2)
    clear = np.abs(discriminant) > 1e-3
    hit = clear & (discriminant > 0)
    assert hit.sum() > 50
    expected = (distance_m - np.sqrt(discriminant[hit])) / squared[hit]
    np.testing.assert_allclose(found.depth_m[hit], expected, rtol=1e-4)
    assert ((found.owner == 0) == (discriminant > 0))[clear].all()


@pytest.mark.parametrize(
    ("solid", "depth_m"),
    [(Box((0.5, 0.7, 0.5)), 3.3), (Cylinder(0.6, 0.8), 3.4), (Cone(0.8, 1.0), 3.6), (Sphere(0.9), 3.1)],
)
def test_depth_on_the_axis_of_every_solid(solid: Solid, depth_m: float) -> None:
    """Four meters to the center, less half a side, the radius, or half the cone's base radius."""
    found = render(scene(thing(solid, (0.0, 0.0, 0.0))), 65, 65, supersampling=1)
    assert center(found.depth_m) == pytest.approx(depth_m, abs=2e-4)


def test_depth_turns_with_the_camera() -> None:
    """Pitched down by 30 degrees, the axis meets the floor 1.5 m below after 3 m."""
    cos, sin = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    pitched = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    found = render(scene(rotation=pitched), 65, 65, supersampling=1)
    assert center(found.depth_m) == pytest.approx(3.0, rel=1e-5)


def test_sky_of_a_yard() -> None:
    found = render(scene(place=YARD), 64, 64, supersampling=1)
    sky = found.owner == SKY
    assert (np.isinf(found.depth_m) == sky).all()
    assert sky[0].all() and not sky[-1].any()
    assert found.inverse_depth[sky].max() == 0
    assert (found.inverse_depth.min(), found.inverse_depth.max()) == (0, 1)


@pytest.mark.parametrize(
    "solid",
    [
        Sphere(0.7),
        Box((0.5, 0.6, 0.7)),
        Cylinder(0.5, 0.8),
        Cone(0.6, 0.9),
    ],
)
def test_normals(solid: Solid) -> None:
    """Unit length, against the ray, and square to the surface: a ray beside it hits beside it."""
    rng = np.random.default_rng(0)
    origin = rng.normal(size=(3, 400)).astype(np.float32)
    origin *= 4 / np.linalg.norm(origin, axis=0)
    target = rng.uniform(-0.5, 0.5, (3, 400)).astype(np.float32)
    direction = (target - origin) / np.linalg.norm(target - origin, axis=0)
    hits = solid.intersect(origin, direction)
    hit = np.isfinite(hits.distance_m)
    assert hit.sum() > 200
    normal = hits.normal[:, hit]
    np.testing.assert_allclose(np.linalg.norm(normal, axis=0), 1, atol=1e-3)
    assert ((normal * direction[:, hit]).sum(0) < 1e-3).all()
    aside = np.float32(1e-2) * np.roll(direction, 1, 0)
    beside = solid.intersect(origin + aside, direction)
    both = hit & np.isfinite(beside.distance_m) & (beside.face == hits.face)
    step = aside[:, both] + (beside.distance_m[both] - hits.distance_m[both]) * direction[:, both]
    slope = (step * hits.normal[:, both]).sum(0) / np.linalg.norm(step, axis=0)
    assert np.median(np.abs(slope)) < 0.02


def test_edges_lie_between_surfaces() -> None:
    """A box in front of the far wall: its outline and the room's corners, and nothing inside a surface."""
    found = render(scene(thing(Box((0.5, 0.5, 0.5)), (0.0, 0.0, 0.0), "box")), 64, 64, supersampling=1)
    owner = found.owner
    outline = np.zeros(owner.shape, bool)
    outline[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    outline[:-1] |= owner[:-1] != owner[1:]
    assert outline.sum() > 30 and found.edges[outline].all()
    rows, columns = np.nonzero(owner == 0)
    inside = found.edges[rows.min() + 1 : rows.max() - 1, columns.min() + 1 : columns.max() - 1]
    assert inside.size > 50 and not inside.any()
    assert 0 < (found.edges & ~outline).sum() < 0.2 * owner.size


def test_shadow() -> None:
    """A ball under a light darkens the floor below it, unless the light casts no shadows; the rest stays."""
    ball = thing(Sphere(0.3), (0.0, -1.0, -0.4))
    bright, dark = (
        render(scene(ball, lights=(light(0.0, -1.0, 1.2, shadow=shadow),)), 64, 64, supersampling=1)
        for shadow in (False, True)
    )
    darker = np.all(dark.image < bright.image, axis=-1)
    assert not (dark.image > bright.image).any()
    rays = directions(64, 64)
    point = np.array(CAMERA_M)[:, None, None] + rays * dark.depth_m
    on_floor = (dark.owner == SHELL) & (np.abs(point[2] + HALF_ROOM_M[2]) < 1e-3)
    from_center_m = np.hypot(point[0], point[1] + 1.0)
    shadow_radius_m = 2.7 * np.tan(
        np.arcsin(0.3 / 1.6)
    )  # tangent cone: light 1.6 m over the ball, 2.7 m over the floor
    assert darker[on_floor & (from_center_m < 0.95 * shadow_radius_m)].all()
    assert not darker[on_floor & (from_center_m > 1.05 * shadow_radius_m)].any()


def test_captions_name_what_is_seen_nearest_first() -> None:
    seen = (thing(Sphere(0.6), (1.0, 1.0, 0.0), color="blue"), thing(Box((0.3, 0.3, 0.3)), (-0.8, -1.5, 0.0), "box"))
    hidden = thing(Cone(0.2, 0.2), (-1.5, 2.0, 0.0), "cone", "orange")
    behind = thing(Cylinder(0.4, 0.4), (0.0, -4.8, 0.0), "cylinder", "teal")
    text = render(scene(*seen, hidden, behind), 64, 64, supersampling=1).caption
    assert text == "a red box and a blue ball in a room with gray walls and a green floor"
    assert render(scene(place=YARD), 32, 32).caption == "nothing in a yard with gray walls and a green floor"


def test_captions_of_sampled_scenes_name_visible_things_only() -> None:
    for index in range(12):
        sampled = sample_scene(3, index)
        found = render(sampled, 48, 48, supersampling=1)
        named = found.caption.split(" in a ")[0]
        visible = [found.owner == number for number in range(len(sampled.things))]
        count = sum(pixels.mean() >= 0.006 for pixels in visible)
        assert named.count(",") + named.count(" and ") + (named != "nothing") == count
        for item, pixels in zip(sampled.things, visible, strict=True):
            assert not pixels.any() or item.name in named or pixels.mean() < 0.006


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    one, again, other = (render(sample_scene(seed, 7), 32, 32) for seed in (1, 1, 2))
    assert (one.image == again.image).all() and (one.depth_m == again.depth_m).all()
    assert one.caption == again.caption and (one.people == again.people).all() and (one.pose == again.pose).all()
    assert (one.depth_m != other.depth_m).any()


@pytest.mark.parametrize("supersampling", [1, 2, 3])
def test_supersampling_changes_colors_alone(supersampling: int) -> None:
    sampled = sample_scene(1, 3)
    one, fine = render(sampled, 40, 24, supersampling=1), render(sampled, 40, 24, supersampling)
    assert fine.image.shape == (24, 40, 3) and fine.image.dtype == np.uint8
    assert (fine.depth_m == one.depth_m).all() and (fine.edges == one.edges).all() and (fine.owner == one.owner).all()
    assert np.abs(fine.image.astype(int) - one.image).mean() < 20


def test_patterns_show() -> None:
    ball = thing(Sphere(0.8), (0.0, -1.0, 0.0))
    base = plain("red")
    images = {}
    for pattern in ("plain", "checkered", "striped", "dotted", "tiled", "marbled"):
        painted = replace(base, pattern=pattern, second=np.array([0.05, 0.9, 0.05]), scale_m=0.3)
        images[pattern] = render(scene(replace(ball, texture=painted)), 32, 32).image
    for name, image in images.items():
        assert [other for other in images if (images[other] == image).all()] == [name]


def test_another_view_shows_the_same_scene_from_near_by() -> None:
    for index in range(20):
        own, other = sample_scene(6, index), sample_scene(6, index, view=1)
        assert own.lights[0].position_m.tolist() == other.lights[0].position_m.tolist()
        assert [thing.name for thing in own.things] == [thing.name for thing in other.things]
        moved_m = other.camera.position_m - own.camera.position_m
        assert np.linalg.norm(moved_m) < 2.5
        assert (np.abs(other.camera.position_m) < own.shell.half_size_m).all()
        turned = np.trace(own.camera.rotation.T @ other.camera.rotation)
        assert 1 + 2 * np.cos(np.deg2rad(26)) < turned < 1 + 2 * np.cos(np.deg2rad(4))
        again = sample_scene(6, index, view=1).camera
        assert np.array_equal(again.position_m, other.camera.position_m)
