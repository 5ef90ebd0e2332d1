# diffusers declares its configurations as plain dictionaries.
# pyright: reportAttributeAccessIssue=false
"""Pairs of photographs: image and condition show the same part, and all randomness comes from the generator."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from tests.support.images import square, write_squares
from unicon.training.photograph_pairs import PhotographPairs, Views, crop_box, random_size
from unicon.training.photographs import (
    Photograph,
    find_images,
    match_conditions,
    prepare_photographs,
    read_image,
)

VIEWS = Views(resolution_px=32, multiple=4)


def inverted(image: Image.Image) -> Image.Image:
    """A condition from which one can tell which part of which image it shows."""
    return Image.eval(image, lambda value: 255 - value)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Photograph]:
    folder = tmp_path_factory.mktemp("photographs")
    return prepare_photographs(write_squares(folder / "images", 6), folder / "kept", lambda: inverted, side_px=48)


@pytest.fixture(scope="module")
def vae(tiny_folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(tiny_folder / "vae")


def test_image_and_condition_show_the_same_part(photographs: list[Photograph], vae: AutoencoderKL) -> None:
    pairs = PhotographPairs(photographs, vae, VIEWS)
    shapes = set()
    for seed in range(12):
        images, conditions, captions = pairs.draw_pixels(torch.Generator().manual_seed(seed), 4)
        assert images.shape == conditions.shape and len(captions) == 4
        assert (images + conditions).abs().mean() < 0.05
        shapes.add(tuple(images.shape[2:]))
    assert len(shapes) > 3
    assert all(h % 4 == w % 4 == 0 and 0.8 < h * w / 32**2 < 1.25 for h, w in shapes)


def test_a_draw_belongs_to_its_generator(photographs: list[Photograph], vae: AutoencoderKL) -> None:
    first = PhotographPairs(photographs, vae, VIEWS).draw(torch.Generator().manual_seed(3), 4)
    torch.manual_seed(99)
    again = PhotographPairs(photographs, vae, VIEWS).draw(torch.Generator().manual_seed(3), 4)
    other = PhotographPairs(photographs, vae, VIEWS).draw(torch.Generator().manual_seed(4), 4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and first[2] == again[2]
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])
    assert first[0].shape[:2] == (4, vae.config.latent_channels)


def test_flips_can_be_left_out(tmp_path: Path, vae: AutoencoderKL) -> None:
    """The bright left half of an image stays on the left, or moves to the right."""
    (tmp_path / "images").mkdir()
    square((64, 64), (0, 0, 31, 63)).save(tmp_path / "images" / "left.png")
    photographs = prepare_photographs(tmp_path / "images", tmp_path / "kept", lambda: inverted, side_px=48)
    for probability, expected in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        views = Views(resolution_px=32, multiple=4, max_aspect=1.0, flip_probability=probability)
        images, _, _ = PhotographPairs(photographs, vae, views).draw_pixels(torch.Generator().manual_seed(0), 200)
        brighter_left = images[..., :4].mean((1, 2, 3)) > images[..., -4:].mean((1, 2, 3))
        assert brighter_left.float().mean() == pytest.approx(expected, abs=0.12)


def test_random_sizes_have_a_constant_area() -> None:
    views, generator = Views(resolution_px=512, multiple=64), torch.Generator().manual_seed(0)
    sizes = [random_size(views, generator) for _ in range(300)]
    assert all(width % 64 == height % 64 == 0 for width, height in sizes)
    assert all(0.85 < width * height / 512**2 < 1.15 for width, height in sizes)
    assert np.mean([math.log(width / height) for width, height in sizes]) == pytest.approx(0, abs=0.1)
    assert max(width / height for width, height in sizes) == pytest.approx(2, abs=0.3)


def test_crop_box_keeps_the_aspect_ratio_inside_the_image() -> None:
    assert crop_box((100, 50), (32, 32), 1.0, 0.5, 0.5) == pytest.approx((0.25, 0.0, 0.75, 1.0))
    left, top, right, bottom = crop_box((100, 50), (64, 16), 0.5, 1.0, 1.0)
    assert (right, bottom) == (1.0, 1.0)
    assert (right - left) * 100 / ((bottom - top) * 50) == pytest.approx(4)


def test_images_of_any_mode_size_and_orientation(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    square().convert("P").save(images / "palette.png")
    Image.fromarray(np.full((40, 60), 30000, np.uint16)).save(images / "deep.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6
    square((1200, 800)).save(images / "turned.jpg", exif=exif)
    square().convert("CMYK").save(images / "print.jpeg")
    (images / "turned.txt").write_text("on its side")
    (images / "notes.md").write_text("no image")
    photographs = prepare_photographs(images, tmp_path / "kept", lambda: inverted, side_px=48)
    assert [photograph.image.stem for photograph in photographs] == ["deep", "palette", "print", "turned"]
    assert [photograph.caption for photograph in photographs] == ["", "", "", "on its side"]
    for photograph in photographs:
        assert size_of(photograph.condition) == read_image(photograph.image, 48).size
    assert size_of(photographs[-1].condition) == (48, 72)


def test_conditions_are_made_once(tmp_path: Path) -> None:
    images = write_squares(tmp_path / "images", 3)
    made: list[tuple[int, int]] = []

    def annotate(image: Image.Image) -> Image.Image:
        made.append(image.size)
        return inverted(image)

    first = prepare_photographs(images, tmp_path / "kept", lambda: annotate, side_px=48)
    assert prepare_photographs(images, tmp_path / "kept", lambda: annotate, side_px=48) == first
    assert len(made) == 3
    square((50, 50)).save(images / "square-03.png")
    assert len(prepare_photographs(images, tmp_path / "kept", lambda: annotate, side_px=48)) == 4
    assert len(made) == 4


def test_a_damaged_image_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_squares(tmp_path / "images", 2)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    cut = (images / "square-00.png").read_bytes()
    (images / "cut.png").write_bytes(cut[: len(cut) // 2])
    photographs = prepare_photographs(images, tmp_path / "kept", lambda: inverted, side_px=48)
    assert [photograph.image.stem for photograph in photographs] == ["square-00", "square-01"]
    told = capsys.readouterr().err
    assert "left out" in told and "broken.jpg" in told and "cut.png" in told


def test_conditions_of_the_user(tmp_path: Path) -> None:
    images, maps = write_squares(tmp_path / "images", 3), tmp_path / "maps"
    maps.mkdir()
    for name, path in find_images(images).items():
        size = size_of(path)
        Image.fromarray(np.full((size[1] * 2, size[0] * 2), 65535, np.uint16)).save(maps / f"{name}.png")
    photographs = prepare_photographs(images, tmp_path / "kept", maps, side_px=48)
    assert all(np.asarray(Image.open(photograph.condition)).min() == 255 for photograph in photographs)
    assert photographs[0].caption == "a yellow square"
    (maps / "square-01.png").unlink()
    with pytest.raises(FileNotFoundError, match="none for 1 of 3 images: square-01.png"):
        match_conditions(find_images(images), maps)
    square((200, 20)).save(maps / "square-01.png")
    with pytest.raises(ValueError, match="A condition shows the whole image upright"):
        prepare_photographs(images, tmp_path / "kept", maps, side_px=48)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Images are given as a folder"):
        find_images(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="there are none in"):
        find_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="none of 1 files"):
        prepare_photographs(tmp_path, tmp_path / "kept", lambda: inverted, side_px=48)
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a.jpg and a.png .* have the same"):
        find_images(tmp_path)


@pytest.mark.parametrize("options", [{"max_aspect": 0.5}, {"min_crop": 0}, {"flip_probability": 2}, {"multiple": 0}])
def test_views_refuse_nonsense(options: dict) -> None:
    with pytest.raises(ValueError, match="Views need"):
        Views(**{"resolution_px": 32, "multiple": 8, **options})
