"""Entropy and sharpness of images."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipelines.quality.scores import entropy, sharpness


def photo(size_px: tuple[int, int]) -> Image.Image:
    """Return an image with detail at every scale."""
    rng = np.random.default_rng(1)
    noise = [Image.fromarray(rng.random((side, side), np.float32)) for side in (4, 16, 64, 256)]
    levels = np.sum([np.asarray(each.resize((768, 512), Image.Resampling.BICUBIC)) for each in noise], axis=0)
    gray = np.round(255 * (levels - levels.min()) / np.ptp(levels)).astype(np.uint8)
    return Image.fromarray(gray).convert("RGB").resize(size_px, Image.Resampling.LANCZOS)


def test_entropy_counts_gray_levels_in_bits() -> None:
    assert entropy(Image.new("RGB", (40, 30), "teal")) == 0
    halves = Image.new("RGB", (40, 30))
    halves.paste("white", (0, 0, 20, 30))
    assert entropy(halves) == pytest.approx(1)
    every_level = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert entropy(Image.fromarray(every_level)) == pytest.approx(8)


def test_sharpness_falls_with_blur_but_not_with_resolution() -> None:
    image = photo((768, 512))
    blurred = image.filter(ImageFilter.GaussianBlur(4))
    assert sharpness(blurred) < 0.2 * sharpness(image)
    assert sharpness(photo((384, 256))) == pytest.approx(sharpness(image), rel=0.15)
    assert sharpness(Image.new("RGB", (900, 3), "gray")) == 0
