"""Poses are drawn and read back."""

from __future__ import annotations

import numpy as np
import pytest

from unicon.metrics.pose import MIN_CONFIDENCE
from unicon.pose import COLORS, JOINT_RADIUS, JOINTS, LIMB_SHADE, LIMBS, draw_pose, read_pose

SIZES = [(128, 128), (160, 96), (96, 160), (256, 256), (77, 131)]
NECK, RIGHT_SHOULDER = JOINTS.index("neck"), JOINTS.index("right_shoulder")


def scattered_person(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """Joints (J, 3), all visible, no two so near that one drawn joint covers the other."""
    radius_px = JOINT_RADIUS * max(size_px)
    places: list[np.ndarray] = []
    while len(places) < len(JOINTS):
        place = rng.uniform(radius_px, np.array(size_px) - radius_px)
        if all(np.linalg.norm(place - other) > 2.5 * radius_px + 1 for other in places):
            places.append(place)
    return np.column_stack([places, np.ones(len(JOINTS))]).astype(np.float32)


@pytest.mark.parametrize("size_px", SIZES)
def test_joints_are_read_where_they_were_drawn(size_px: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        person = scattered_person(rng, size_px)
        found = read_pose(draw_pose(person[None], size_px))
        assert np.abs(found[:, :2] - person[:, :2]).max() < 1
        assert found[:, 2].min() > 0.6


def test_hidden_joints_are_neither_drawn_nor_read() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        person = scattered_person(rng, (128, 128))
        person[:, 2] = rng.random(len(JOINTS)) < 0.5
        found = read_pose(draw_pose(person[None], (128, 128)))
        seen = person[:, 2] > 0
        assert np.abs(found[seen, :2] - person[seen, :2]).max() < 1
        assert found[seen, 2].min() > 0.6
        assert found[~seen, 2].max(initial=0) < 0.2


def test_a_drawn_joint_and_limb_have_their_colors() -> None:
    person = np.zeros((len(JOINTS), 3), np.float32)
    person[NECK] = [20, 40, 1]
    person[RIGHT_SHOULDER] = [60, 40, 1]
    image = draw_pose(person[None], (128, 96))
    assert image.shape == (96, 128, 3) and image.dtype == np.uint8
    assert (image[40, 20] == COLORS[NECK]).all() and (image[40, 60] == COLORS[RIGHT_SHOULDER]).all()
    limb = LIMBS.index((NECK, RIGHT_SHOULDER))
    assert (image[40, 40] == (COLORS[limb] * LIMB_SHADE).astype(int)).all()
    person[RIGHT_SHOULDER, 2] = 0
    alone = draw_pose(person[None], (128, 96))
    assert (alone[40, 20] == COLORS[NECK]).all() and not alone[40, 40].any() and not alone[40, 60].any()


def test_every_joint_has_a_color_of_its_own_and_a_limb() -> None:
    assert len(JOINTS) == len(COLORS) == len({tuple(color) for color in COLORS.tolist()})
    assert {joint for limb in LIMBS for joint in limb} == set(range(len(JOINTS)))


def test_several_people() -> None:
    one, other = (np.zeros((len(JOINTS), 3), np.float32) for _ in range(2))
    one[NECK], other[NECK] = [20, 20, 1], [100, 90, 1]
    image = draw_pose(np.stack([one, other]), (128, 128))
    assert (image[20, 20] == COLORS[NECK]).all() and (image[90, 100] == COLORS[NECK]).all()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_nothing_is_read_from_gray(level: int) -> None:
    assert (read_pose(np.full((48, 64, 3), level, np.uint8)) == 0).all()


def test_nobody_is_black() -> None:
    image = draw_pose(np.zeros((0, len(JOINTS), 3), np.float32), (32, 24))
    assert image.shape == (24, 32, 3) and not image.any()


def test_confidence_falls_as_a_drawing_fades() -> None:
    person = scattered_person(np.random.default_rng(2), (128, 128))
    image = draw_pose(person[None], (128, 128))
    faded = [read_pose((image * share).astype(np.uint8)) for share in (1.0, 0.85, 0.7, 0.4, 0.0)]
    means = [joints[:, 2].mean() for joints in faded]
    assert means == sorted(means, reverse=True)
    assert means[3] < MIN_CONFIDENCE and means[4] == 0
    assert np.abs(faded[2][:, :2] - person[:, :2]).max() < 1
