"""Photographs of a folder with their conditions and captions, and as rows for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import square, write_squares
from unicon.training.photograph_rows import PhotographRows
from unicon.training.photographs import (
    Photograph,
    find_images,
    match_conditions,
    prepare_photographs,
    read_image,
)


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


def test_photographs_are_rows(photographs: list[Photograph]) -> None:
    rows = PhotographRows(photographs, "edge", 48)
    assert len(rows) == 6 and rows.sizes() == [size_of(photograph.condition) for photograph in photographs]
    row = rows[1]
    assert row.key == photographs[1].image.stem and row.caption == photographs[1].caption
    assert row.image.size == row.maps["edge"].size
    image, condition = (np.asarray(each).astype(int) for each in (row.image, row.maps["edge"]))
    assert np.abs(image + condition - 255).mean() < 5


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
