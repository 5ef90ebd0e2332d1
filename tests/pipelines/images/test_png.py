"""The PNG encoder: other decoders return the same pixels, and the files are standard."""

import io
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.images.png import png_bytes

SHAPES = ((1, 1), (1, 7), (5, 1), (33, 20))
"""(height, width)."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
def test_decoders_return_the_same_pixels(mode: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    most, dtype = (65536, np.uint16) if mode == "I;16" else (256, np.uint8)
    pixels = rng.integers(0, most, (*shape, 3) if mode == "RGB" else shape, dtype)
    content = png_bytes(Image.fromarray(pixels))
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    decoded = Image.open(io.BytesIO(content))
    assert (decoded.mode, decoded.info) == (mode, {})
    assert np.array_equal(np.asarray(decoded), pixels)
    other: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(other[..., ::-1] if mode == "RGB" else other, pixels)


def test_an_image_over_a_buffer_and_a_cropped_one_are_encoded_as_they_are() -> None:
    pixels = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300
    cropped = Image.fromarray(pixels).crop((3, 2, 11, 9))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(cropped)))), pixels[2:9, 3:11])
    swapped = Image.frombytes("I;16", (16, 12), pixels.tobytes())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(swapped)))), pixels)


def test_smooth_maps_are_compressed() -> None:
    smooth = np.linspace(0, 255, 256 * 256).reshape(256, 256).astype(np.uint8)
    content = png_bytes(Image.fromarray(smooth))
    assert len(content) < smooth.nbytes / 20
    assert content == png_bytes(Image.fromarray(smooth)), "the same bytes every time"
    start = content.index(b"IDAT") + 4
    assert len(zlib.decompress(content[start:])[: 256 * 257]) == 256 * 257


def test_other_modes_are_refused() -> None:
    with pytest.raises(KeyError, match="RGBA"):
        png_bytes(Image.new("RGBA", (2, 2)))
