"""Mirroring drawn poses: left and right joints and limbs have colors of their own, which a mirror exchanges.

A drawing is recolored pixel by pixel, so that it works for those of `unicon.pose` and of OpenPose annotators, with any
number of people. Joints and limbs of one hue differ in brightness: limbs are drawn darker (by half here, 0.6 in
OpenPose). The colors are those of OpenPose's body model with 18 joints, of which `unicon.pose` draws the first 14.

Shapes: H W pixels.

Tested in tests/unicon/test_pose_mirror.py.
"""

from __future__ import annotations

import numpy as np

from unicon.pose import hue

HUES = 18
"""Number of colors of OpenPose's body model, evenly spaced in hue: red (0), orange, ..., pink (17)."""
JOINT_SIDES = ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17))
"""(right, left) indices of joints: shoulders, elbows, wrists, hips, knees, ankles, eyes, ears."""
LIMB_SIDES = ((0, 1), (2, 4), (3, 5), (6, 9), (7, 10), (8, 11), (13, 15), (14, 16))
"""(right, left) indices of limbs, in the order in which OpenPose draws them; the neck (12) has no side."""
MIN_JOINT_BRIGHTNESS = 0.75
"""Pixels of limbs are darker."""
MIN_SATURATION = 0.5
"""Pixels of less saturated colors (white, gray, black) belong to neither."""


def swap_sides(image: np.ndarray) -> np.ndarray:
    """Exchange the colors of left and right in a drawn pose, (H, W, 3) uint8. Nothing moves."""
    pixels = image.astype(np.float32) / 255
    brightness = pixels.max(-1)
    saturated = pixels.min(-1) < (1 - MIN_SATURATION) * brightness
    index = np.rint(hue(pixels) * HUES).astype(int) % HUES
    is_joint = saturated & (brightness > MIN_JOINT_BRIGHTNESS)
    joints, limbs = _exchange(JOINT_SIDES)[index], _exchange(LIMB_SIDES)[index]
    swapped = np.where(is_joint | _is_near(is_joint, index), joints, limbs)
    recolored = brightness[..., None] * _RAINBOW[swapped]
    changed = saturated & (swapped != index)
    return np.where(changed[..., None], np.rint(255 * recolored), image).astype(np.uint8)


def mirror_pose(image: np.ndarray) -> np.ndarray:
    """The drawing (H, W, 3) uint8 of the mirrored people: mirrored, and with left and right exchanged."""
    return np.ascontiguousarray(swap_sides(image)[:, ::-1])


def _exchange(sides: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The index (HUES,) that each index becomes."""
    table = np.arange(HUES)
    for right, left in sides:
        table[[right, left]] = left, right
    return table


def _is_near(is_joint: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels next to a pixel of a joint of their hue. They are the joint's border, which is darker."""
    joints = np.pad(np.where(is_joint, index, -1), 1, constant_values=-1)
    rows, columns = index.shape
    around = [joints[down : down + rows, right : right + columns] for down in range(3) for right in range(3)]
    return np.any([part == index for part in around], axis=0)


def _rainbow() -> np.ndarray:
    """The colors (HUES, 3) in [0, 1] of OpenPose, each a step of a third of 255 from the next."""
    corner = np.arange(HUES)[:, None] / 3 + np.array([0, 4, 2])
    return np.clip(np.abs(corner % 6 - 3) - 1, 0, 1).astype(np.float32)


_RAINBOW = _rainbow()
