from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unicon import colors, images


def ramp(mode: str) -> Image.Image:
    levels = np.tile(np.linspace(0, 255, 8, dtype=np.uint8), (4, 1))
    if mode == "I;16":
        return Image.fromarray(levels.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(levels.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(levels.astype(np.float32) / 255)
    return Image.fromarray(levels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_every_mode_becomes_the_same_rgb(mode: str) -> None:
    rgb = images.to_rgb(ramp(mode))
    assert rgb.mode == "RGB" and rgb.size == (8, 4)
    difference = np.asarray(rgb).astype(int) - np.asarray(ramp("L").convert("RGB")).astype(int)
    assert np.abs(difference).max() <= (1 if mode in ("YCbCr", "P") else 0)


def test_bilevel_and_transparent() -> None:
    assert images.to_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)
    assert images.to_rgb(Image.new("RGBA", (2, 2), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation(tmp_path) -> None:
    image = Image.new("RGB", (6, 4), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    stored = Image.open(tmp_path / "a.png")
    assert colors.oriented_size(stored) == (4, 6)
    upright = images.to_rgb(stored)
    assert upright.size == (4, 6)
    assert upright.getpixel((3, 0)) == (255, 255, 255)


def test_images_travel_in_bytes_and_are_normalized_on_the_device() -> None:
    image = ramp("RGB")
    pixels = images.to_bytes(image, (16, 12))
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 12, 16)
    assert torch.equal(images.normalized(pixels), images.to_model(image, (16, 12)))
    given = torch.rand(1, 3, 2, 2)
    assert images.normalized(given) is given


def test_tensors_and_back() -> None:
    image = ramp("RGB")
    tensor = images.to_model(image, image.size)
    assert tensor.shape == (3, 4, 8) and (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(np.asarray(images.from_model(tensor)), np.asarray(image))
    assert images.to_model(image, (16, 12)).shape == (3, 12, 16)
    values = np.random.default_rng(0).random((4, 8), dtype=np.float32)
    assert images.resize_map(values, (8, 4)) is values
    assert images.resize_map(values, (20, 10)).shape == (10, 20)


def test_a_resized_image_is_rounded_once() -> None:
    tensor = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    resized = images.from_model(tensor, (20, 12))
    assert resized.size == (20, 12)
    nearly = images.from_model(tensor + 1e-6, (20, 12))
    assert np.abs(np.asarray(resized).astype(int) - np.asarray(nearly)).max() <= 1


def test_latent_mask_covers_every_pixel_of_the_mask() -> None:
    mask = np.zeros((20, 40), np.float32)
    mask[3, 5] = 0.1
    latent = images.latent_mask(mask, (40, 20), 4)
    assert latent.shape == (1, 5, 10) and latent.sum() == 1 and latent[0, 0, 1] == 1
    assert images.latent_mask(mask, (16, 8), 4).sum() >= 1
    assert images.latent_mask(np.ones((3, 3), np.float32), (16, 8), 4).min() == 1


def test_blend_keeps_exactly() -> None:
    generator = np.random.default_rng(0)
    generated, kept = generator.random((2, 5, 4, 3), dtype=np.float32)
    mask = np.zeros((5, 4), np.float32)
    mask[0], mask[1] = 1.0, 0.5
    blended = images.blend(generated, kept, mask)
    assert np.array_equal(blended[0], generated[0]) and np.array_equal(blended[2:], kept[2:])
    assert np.allclose(blended[1], (generated[1] + kept[1]) / 2)
