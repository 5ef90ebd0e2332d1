"""Mannequins: capsules agree with brute force, skeletons with their lengths, and joints with pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unicon.pose import JOINTS
from unicon.scenes import render
from unicon.scenes.geometry import Box
from unicon.scenes.layout import ROOM, Camera, Scene, Thing, sample_scene
from unicon.scenes.mannequin import JOINT, Capsule, Mannequin, sample_mannequin
from unicon.scenes.render import Rendering
from unicon.scenes.textures import Texture

LIMBS = {
    ("right_shoulder", "right_elbow"): 0.17, ("right_elbow", "right_wrist"): 0.16,
    ("left_shoulder", "left_elbow"): 0.17, ("left_elbow", "left_wrist"): 0.16,
    ("right_hip", "right_knee"): 0.25, ("right_knee", "right_ankle"): 0.25,
    ("left_hip", "left_knee"): 0.25, ("left_knee", "left_ankle"): 0.25,
}  # fmt: skip
"""Lengths as fractions of the height."""
GREY = Texture("gray", "plain", np.full(3, 0.5), np.full(3, 0.5), 1.0, np.zeros(3))
HALF_ROOM_M = (3.0, 5.0, 1.5)
FACING_CAMERA = np.diag([-1.0, -1.0, 1.0])
"""A mannequin faces its own +y; the camera looks along the world's."""


def mannequins(count: int) -> list[Mannequin]:
    rng = np.random.default_rng(5)
    return [sample_mannequin(rng, rng.uniform(1.1, 1.8)) for _ in range(count)]


def from_segment(capsule: Capsule, points: np.ndarray) -> np.ndarray:
    """Distance of points (..., 3) from a capsule's segment."""
    axis = capsule.end_m - capsule.start_m
    along = np.clip((points - capsule.start_m) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(points - capsule.start_m - along[..., None] * axis, axis=-1)


def rays_past(capsule: Capsule, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions (count, 3) from outside towards the capsule and a little past it."""
    middle = (capsule.start_m + capsule.end_m) / 2
    away = rng.normal(size=(count, 3))
    origin = middle + 4 * away / np.linalg.norm(away, axis=1, keepdims=True)
    target = middle + rng.uniform(-1, 1, (count, 3)) * (
        np.abs(capsule.end_m - capsule.start_m) / 2 + 2 * capsule.radius_m
    )
    direction = target - origin
    return origin, direction / np.linalg.norm(direction, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_a_capsule_is_hit_where_a_walk_along_the_ray_first_meets_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    capsule = Capsule(rng.uniform(-0.5, 0.5, 3), rng.uniform(-0.5, 0.5, 3), rng.uniform(0.05, 0.3))
    origin, direction = rays_past(capsule, 400, rng)
    found, normal = capsule.intersect(origin.T.astype(np.float32), direction.T.astype(np.float32))
    hit = np.isfinite(found)
    assert 50 < hit.sum() < 380
    points = origin[hit] + found[hit, None] * direction[hit]
    np.testing.assert_allclose(from_segment(capsule, points), capsule.radius_m, atol=2e-3)
    walk_m = np.linspace(0.01, 6, 400)
    path = origin[:, None] + walk_m[:, None] * direction[:, None]
    before = walk_m < np.where(hit, found - 1e-3, np.inf)[:, None]
    assert from_segment(capsule, path)[before].min() > capsule.radius_m - 2e-3
    np.testing.assert_allclose(np.linalg.norm(normal[:, hit], axis=0), 1, atol=1e-2)
    step = 1e-2 * normal[:, hit].T
    np.testing.assert_allclose(from_segment(capsule, points + step), capsule.radius_m + 1e-2, atol=2e-3)


def test_a_mannequin_is_hit_where_its_nearest_part_is() -> None:
    figure = mannequins(1)[0]
    rng = np.random.default_rng(0)
    origin, direction = (
        part.T.astype(np.float32) for part in rays_past(Capsule(figure.joints_m[1], figure.joints_m[10], 0.3), 500, rng)
    )
    hits = figure.intersect(origin, direction)
    alone = np.stack([part.intersect(origin, direction)[0] for part in figure.parts])
    np.testing.assert_array_equal(hits.distance_m, alone.min(0).astype(np.float32))
    hit = np.isfinite(hits.distance_m)
    assert hit.sum() > 50
    assert (hits.face[hit] == alone.argmin(0)[hit]).all()
    assert ((hits.normal * direction).sum(0)[hit] < 1e-2).all()


def test_limbs_have_their_lengths() -> None:
    for figure in mannequins(30):
        joints = figure.joints_m / figure.height_m
        for (start, end), length in LIMBS.items():
            assert np.linalg.norm(joints[JOINT[end]] - joints[JOINT[start]]) == pytest.approx(length)


def test_a_figure_is_upright_and_has_its_right_side_at_the_right() -> None:
    for figure in mannequins(30):
        at = dict(zip(JOINTS, figure.joints_m, strict=True))
        assert at["nose"][2] > at["neck"][2] > at["right_hip"][2] > at["right_knee"][2] > at["right_ankle"][2]
        assert at["right_hip"][0] > at["left_hip"][0] and at["right_shoulder"][0] > at["left_shoulder"][0]
        assert 0.7 < (at["nose"] - at["left_ankle"])[2] / figure.height_m < 1


def test_bounds_hold_every_part() -> None:
    for figure in mannequins(10):
        ends = np.array([end for part in figure.parts for end in part.ends_m])
        radii = np.repeat([part.radius_m for part in figure.parts], 2)
        assert (np.linalg.norm(ends, axis=1) + radii).max() == pytest.approx(figure.bounding_radius_m)
        assert (ends[:, 2] - radii).min() == pytest.approx(-figure.half_height_m)


def test_figures_stand_on_the_floor_within_the_room() -> None:
    figures = 0
    for index in range(60):
        scene = sample_scene(3, index)
        for thing in scene.things:
            if not isinstance(thing.solid, Mannequin):
                continue
            figures += 1
            ends = np.array([end for part in thing.solid.parts for end in part.ends_m]) @ thing.rotation.T
            lowest = (ends[:, 2] - np.repeat([part.radius_m for part in thing.solid.parts], 2)).min()
            assert thing.position_m[2] + lowest == pytest.approx(-scene.shell.half_size_m[2])
            assert (np.abs(thing.position_m[:2]) < np.array(scene.shell.half_size_m[:2])).all()
            joints_z = thing.position_m[2] + thing.solid.joints_m[:, 2]
            assert joints_z.max() < scene.shell.half_size_m[2]
    assert figures > 15


def room_with(*things: Thing) -> Scene:
    """A room seen by a level camera that looks along +y from 4 m before the middle."""
    camera = Camera(np.array([0.0, -4.0, 0.0]), np.eye(3), 60.0)
    black = np.zeros(3)
    return Scene(ROOM, Box(HALF_ROOM_M), 3.0, (GREY, GREY, GREY), things, (), black, black, camera)


def standing(figure: Mannequin, x_m: float = 0.0) -> Thing:
    return Thing("mannequin", figure, FACING_CAMERA, np.array([x_m, 0.0, figure.half_height_m - 1.5]), GREY)


def seen(found: Rendering) -> dict[str, bool]:
    """Whether each joint of the one person is in view."""
    (person,) = found.people
    return dict(zip(JOINTS, (person[:, 2] > 0).tolist(), strict=True))


def test_joints_of_a_figure_alone_lie_on_its_pixels() -> None:
    for figure in mannequins(8):
        found = render(room_with(standing(figure)), 96, 128, supersampling=1)
        (person,) = found.people
        column, row = person[:, :2].astype(int).T
        assert (found.owner[row, column] == 0).all() and (person[:, 2] == 1).all()
        behind_m = 4 - figure.joints_m[:, 1] - found.depth_m[row, column]
        assert behind_m.min() > -1e-3 and np.median(behind_m) < 0.2  # a joint is inside the body
        assert person[JOINT["right_shoulder"], 0] < person[JOINT["left_shoulder"], 0]  # it faces us


def test_visible_joints_of_sampled_scenes_lie_on_their_mannequin() -> None:
    people = 0
    for index in range(30):
        scene = sample_scene(4, index)
        found = render(scene, 64, 48, supersampling=1)
        owners = [number for number, thing in enumerate(scene.things) if isinstance(thing.solid, Mannequin)]
        assert len(found.people) <= len(owners)
        for person in found.people:
            people += 1
            visible = person[person[:, 2] > 0]
            column, row = visible[:, :2].astype(int).T
            assert len(visible) and np.isin(found.owner[row, column], owners).all()
    assert people > 5


def test_a_box_before_a_figure_hides_its_joints() -> None:
    figure = mannequins(1)[0]
    low = Thing("box", Box((2.0, 0.1, 0.4)), np.eye(3), np.array([0.0, -1.5, -1.1]), GREY)
    found = render(room_with(standing(figure), low), 128, 128, supersampling=1)
    view = seen(found)
    assert view["nose"] and view["neck"] and not view["right_ankle"] and not view["left_ankle"]
    assert found.pose.any()
    high = replace(low, solid=Box((2.0, 0.1, 1.4)), position_m=np.array([0.0, -1.5, -0.1]))
    hidden = render(room_with(standing(figure), high), 128, 128, supersampling=1)
    assert hidden.people.shape == (0, len(JOINTS), 3) and not hidden.pose.any()


def test_joints_beyond_the_image_are_not_in_view() -> None:
    figure = mannequins(1)[0]
    found = render(room_with(standing(figure, x_m=2.2)), 128, 128, supersampling=1)
    (person,) = found.people
    outside = person[:, 0] >= 128
    assert outside.any() and not person[outside, 2].any() and person[~outside, 2].any()


def test_a_figure_behind_the_camera_is_nobody() -> None:
    figure = replace(standing(mannequins(1)[0]), position_m=np.array([0.0, -4.9, -0.6]))
    assert len(render(room_with(figure), 64, 64, supersampling=1).people) == 0
