"""Sheets of images for people, drawn at checkpoints.

Tested in tests/jobs/test_train_adapter.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

SHEET_HEIGHT_PX = 256


def draw_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Draw rows of images, all of one height, on white."""
    scaled = [[_to_height(image, SHEET_HEIGHT_PX) for image in row] for row in rows]
    width = max(sum(image.width for image in row) for row in scaled)
    sheet = Image.new("RGB", (width, SHEET_HEIGHT_PX * len(scaled)), "white")
    for place, row in enumerate(scaled):
        left = 0
        for image in row:
            sheet.paste(image, (left, place * SHEET_HEIGHT_PX))
            left += image.width
    return sheet


def _to_height(image: Image.Image, height_px: int) -> Image.Image:
    return image.resize((max(1, round(height_px * image.width / image.height)), height_px))
