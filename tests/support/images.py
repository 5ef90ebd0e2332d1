"""Drawn images for tests: a bright square on a dark background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def square(size: tuple[int, int] = (96, 64), box: tuple[int, int, int, int] = (24, 16, 72, 48)) -> Image.Image:
    """Draw a bright square (left, top, right, bottom) on a dark background."""
    image = Image.new("RGB", size, (20, 30, 60))
    ImageDraw.Draw(image).rectangle(box, fill=(240, 220, 90))
    return image


def write_squares(folder: Path, count: int) -> Path:
    """Write a folder of `count` images of different shapes, the first with a caption."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        width, height = (int(side) for side in rng.integers(48, 97, 2))
        left, top = width // 8 + index % 5, height // 6 + index % 3
        image = square((width, height), (left, top, left + width // 2, top + height // 2))
        image.save(folder / f"square-{index:02d}.png")
    (folder / "square-00.txt").write_text("a yellow\nsquare\n")
    return folder
