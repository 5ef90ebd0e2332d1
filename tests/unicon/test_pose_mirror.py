"""A mirrored drawing is the drawing of the mirrored people."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unicon.test_pose import scattered_person
from unicon.pose import COLORS, JOINTS, LIMBS, draw_pose, read_pose
from unicon.pose_mirror import _RAINBOW, JOINT_SIDES, LIMB_SIDES, mirror_pose, swap_sides
from unicon.scenes import render
from unicon.scenes.layout import sample_scene

SCENES = [sample_scene(2, index) for index in range(12)]
MANNEQUINS = [person for scene in SCENES for person in render(scene).people][:4]
"""People (J, 3) in images of 128 x 128 pixels."""


def mirrored(people: np.ndarray, width_px: int) -> np.ndarray:
    """The people (P, J, 3) as a mirror shows them: right joints are left ones."""
    other = [name.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left") for name in JOINTS]
    swapped = people[:, [JOINTS.index(name) for name in other]].copy()
    swapped[..., 0] = width_px - swapped[..., 0]
    return swapped


@pytest.mark.parametrize("side_px", [128, 256, 512])
def test_a_mirrored_drawing_shows_the_mirrored_people(side_px: int) -> None:
    """Except at the borders of joints and where limbs cross, which hides one of them."""
    people, size_px = np.stack(MANNEQUINS) * [side_px / 128, side_px / 128, 1], (side_px, side_px)
    for group in (people[:1], people[1:2], people[2:4]):
        found = mirror_pose(draw_pose(group, size_px)).astype(int)
        expected = draw_pose(mirrored(group, side_px), size_px).astype(int)
        plain = draw_pose(group, size_px)[:, ::-1].astype(int)
        different = np.abs(found - expected).max(-1) > 40
        assert different.sum() < 0.12 * (expected.max(-1) > 20).sum()
        assert np.abs(found - expected).mean() < 0.2 * np.abs(plain - expected).mean()


def test_joints_of_a_mirrored_drawing_are_read_on_the_other_side() -> None:
    person = scattered_person(np.random.default_rng(3), (128, 128))[None]
    found = read_pose(mirror_pose(draw_pose(person, (128, 128))))
    assert np.abs(found[:, :2] - mirrored(person, 128)[0, :, :2]).max() < 1


def test_twice_is_the_drawing_and_gray_stays() -> None:
    person = scattered_person(np.random.default_rng(1), (128, 128))[None]
    drawn = draw_pose(person, (128, 128))
    assert (np.abs(mirror_pose(mirror_pose(drawn)).astype(int) - drawn).max(-1) > 40).mean() < 0.02
    gray = np.full((4, 5, 3), 200, np.uint8)
    assert np.array_equal(swap_sides(gray), gray)


def test_colors_and_sides_are_those_of_the_drawings() -> None:
    assert np.abs(_RAINBOW[: len(COLORS)] * 255 - COLORS).max() < 1e-3
    names = {index: name for index, name in enumerate(JOINTS)}
    for right, left in JOINT_SIDES[:6]:
        assert names[right].replace("right", "left") == names[left]
    swap = dict([*JOINT_SIDES, *((left, right) for right, left in JOINT_SIDES)])
    for right, left in LIMB_SIDES[:6]:
        assert tuple(swap.get(joint, joint) for joint in LIMBS[right]) == LIMBS[left]
