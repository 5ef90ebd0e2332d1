"""Body poses as images: drawing colored joints and limbs on black, and reading them back.

The joints are the first fourteen of OpenPose's body model (arXiv 1812.08008) in its order and rainbow colors, the form
in which pose-conditioned diffusion models are trained.

Shapes: P people, J = 14 joints, H W pixels.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

JOINTS = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
)  # fmt: skip
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
)  # fmt: skip
"""Pairs of joints that are connected by a limb."""
COLORS = np.array([
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
], np.uint8)  # fmt: skip
"""(J, 3) colors of the joints. A limb has the color at its index, darkened by `LIMB_SHADE`."""
LIMB_SHADE = 0.5
JOINT_RADIUS = 2.6 / 128
"""Radius of a drawn joint, as a fraction of the image's longer side."""
LIMB_WIDTH = 2.0 / 128
"""Width of a drawn limb, as a fraction of the image's longer side."""
SUPERSAMPLING = 4


def draw_pose(people: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Draw people (P, J, 3) as an image (H, W, 3) uint8.

    Args:
        people: x, y in pixels (0 is the left or upper border of the image) and visibility. A joint is drawn if its
            visibility is positive, a limb if both of its joints are drawn.
        size_px: (width, height).
    """
    fine = Image.new("RGB", (size_px[0] * SUPERSAMPLING, size_px[1] * SUPERSAMPLING))
    draw = ImageDraw.Draw(fine)
    longer = max(size_px) * SUPERSAMPLING
    radius, width = JOINT_RADIUS * longer, round(LIMB_WIDTH * longer)
    for person in people:
        places, seen = person[:, :2] * SUPERSAMPLING, person[:, 2] > 0
        for (start, end), color in zip(LIMBS, COLORS, strict=False):
            if seen[start] and seen[end]:
                shade = tuple((color * LIMB_SHADE).astype(int).tolist())
                draw.line([tuple(places[start]), tuple(places[end])], fill=shade, width=width)
        for place, color in zip(places[seen], COLORS[seen], strict=True):
            draw.ellipse([*(place - radius), *(place + radius)], fill=tuple(color.tolist()))
    return np.asarray(fine.resize(size_px, Image.Resampling.BOX))


def read_pose(image: np.ndarray) -> np.ndarray:
    """Read the joints of one person (J, 3) from a drawn pose (H, W, 3) uint8: x, y in pixels, and confidence.

    A pixel votes for a joint with the square of its brightness, so that joints outweigh limbs of the same color in
    faint drawings too, and with the similarity of its hue. The joint is at the centroid of the window with most votes.
    Confidence is the fraction of a whole drawn joint in this window, clipped to 1; it is 0 if no pixel has the color.
    """
    pixels = image.astype(np.float32) / 255
    votes = _votes(pixels)
    radius = JOINT_RADIUS * max(pixels.shape[:2])
    reach = max(1, int(np.ceil(radius)))
    joints = np.zeros((len(JOINTS), 3), np.float32)
    for joint, vote in enumerate(votes):
        window = _box_sum(vote, reach)
        row, column = np.unravel_index(int(window.argmax()), window.shape)
        rows = slice(max(0, row - reach), row + reach + 1)
        columns = slice(max(0, column - reach), column + reach + 1)
        part = vote[rows, columns]
        weight = float(part.sum())
        if weight <= 0:
            continue
        y, x = np.mgrid[rows.start : rows.start + part.shape[0], columns.start : columns.start + part.shape[1]]
        center = ((x + 0.5) * part).sum() / weight, ((y + 0.5) * part).sum() / weight
        joints[joint] = (*center, min(1.0, weight / (np.pi * radius * radius)))
    return joints


def _votes(pixels: np.ndarray) -> np.ndarray:
    """(J, H, W) in [0, 1]: the similarity of each pixel to the color of each joint."""
    brightness = pixels.max(-1)
    saturation = np.where(brightness > 0, 1 - pixels.min(-1) / np.maximum(brightness, 1e-6), 0)
    angle = 2 * np.pi * hue(pixels)
    own = np.array([2 * np.pi * colorsys.rgb_to_hsv(*(color / 255))[0] for color in COLORS])
    distance = np.abs((angle[None] - own[:, None, None] + np.pi) % (2 * np.pi) - np.pi)
    step = 2 * np.pi / 18  # the model's colors are 20 degrees of hue apart
    return np.clip(1 - distance / step, 0, 1) * brightness**2 * np.clip(2 * saturation - 1, 0, 1)


def hue(pixels: np.ndarray) -> np.ndarray:
    """Hue (H, W) in [0, 1) of RGB pixels (H, W, 3)."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return (np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi)) % 1


def _box_sum(values: np.ndarray, reach: int) -> np.ndarray:
    """The sum over a window of width 2 reach + 1 around every pixel, with zeros outside the image."""
    padded = np.pad(values, reach)
    rows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, 0).sum(-1)
    return np.lib.stride_tricks.sliding_window_view(rows, 2 * reach + 1, 1).sum(-1)
