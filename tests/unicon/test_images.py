from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unicon import images
from unicon.conditions import CONDITIONS


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
    picture = Image.new("RGB", (6, 4), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    stored = Image.open(tmp_path / "a.png")
    assert images.oriented_size(stored) == (4, 6)
    upright = images.to_rgb(stored)
    assert upright.size == (4, 6)
    assert upright.getpixel((3, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((1, 1), (512, 512)), ((640, 480), (576, 448)), ((480, 640), (448, 576))],
)
def test_working_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert images.working_size(size, area=512**2, multiple=64) == expected


def test_working_sizes_are_few_and_near() -> None:
    found = set()
    for aspect in np.geomspace(0.25, 4, 200):
        size = images.working_size((int(1000 * aspect), 1000), area=512**2, multiple=64)
        found.add(size)
        assert size[0] % 64 == 0 and size[1] % 64 == 0
        assert abs(np.log(size[0] / size[1] / aspect)) < 0.25
        assert abs(np.log(size[0] * size[1] / 512**2)) < 0.25
    assert len(found) < 20
    assert images.working_size((100_000, 10), area=512**2, multiple=64) == (1024, 256)
    with pytest.raises(ValueError, match="positive"):
        images.working_size((0, 5), area=512**2, multiple=64)


def test_tensors_and_back() -> None:
    picture = ramp("RGB")
    tensor = images.to_model(picture, picture.size)
    assert tensor.shape == (3, 4, 8) and (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(np.asarray(images.from_model(tensor)), np.asarray(picture))
    assert images.to_model(picture, (16, 12)).shape == (3, 12, 16)
    values = np.random.default_rng(0).random((4, 8), dtype=np.float32)
    assert images.resize_map(values, (8, 4)) is values
    assert images.resize_map(values, (20, 10)).shape == (10, 20)


def test_depth_encoding_keeps_16_bits(tmp_path) -> None:
    depth = CONDITIONS["depth"]
    values = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    values[0, 0], values[0, 1] = 0.0, 1.0
    depth.encode(values).save(tmp_path / "depth.png")
    stored = Image.open(tmp_path / "depth.png")
    assert stored.mode == "I;16" and np.asarray(stored).max() == 65535
    assert np.abs(depth.decode(stored) - values).max() <= 0.5 / 65535 + 1e-7


def test_depth_model_range() -> None:
    depth = CONDITIONS["depth"]
    values = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    tensor = depth.to_model(values)
    assert tensor.shape == (3, 5, 7) and tensor.min() >= -1 and tensor.max() <= 1
    assert np.allclose(depth.from_model(tensor), values, atol=1e-6)
    assert depth.from_model(torch.full((3, 2, 2), 1.5)).max() == 1.0


def test_depth_preview_is_brighter_when_nearer() -> None:
    preview = np.asarray(CONDITIONS["depth"].preview(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))).sum(axis=-1)
    assert preview.shape == (1, 3) and preview[0, 0] < preview[0, 1] < preview[0, 2]
