"""Near duplicates are found, similar images are not, and the decision which one is kept."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipelines.quality.near_duplicates import duplicates, near_pairs
from pipelines.quality.perceptual_hash import SIGNATURE_BYTES, hash_of, phash, signature
from unicon.scenes import render, sample_scene


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer)


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def cropped(image: Image.Image) -> Image.Image:
    """Remove 5 percent of each side: 2 percent at the left and at the top, the rest at the other ends."""
    width, height = image.size
    return image.crop((round(0.02 * width), round(0.02 * height), round(0.97 * width), round(0.97 * height)))


def signatures(images: Sequence[Image.Image]) -> np.ndarray:
    return np.frombuffer(b"".join(map(signature, images)), np.uint8).reshape(len(images), SIGNATURE_BYTES)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Return photographs, their disjoint tiles, and similar scenes."""
    names = ("astronaut", "coffee", "chelsea", "rocket", "brick", "grass", "camera", "page")
    photos = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]
    tiles = [photo.crop((x, 0, x + 150, 150)) for photo in photos[:4] for x in (0, 150)]
    scenes = [Image.fromarray(render(sample_scene(5, at), 72, 72, supersampling=1).image) for at in range(24)]
    return [*photos, *tiles, *scenes]


@pytest.mark.parametrize("changed", [jpeg, half, cropped, lambda image: jpeg(half(image))])
def test_copies_are_found_and_nothing_else(
    changed: Callable[[Image.Image], Image.Image], images: list[Image.Image]
) -> None:
    pairs = near_pairs(signatures([*images, *map(changed, images)]))
    expected = [[at, at + len(images)] for at in range(len(images))]
    found = [pair for pair in expected if pair in pairs.tolist()]
    assert len(found) >= len(expected) - 1
    assert len(pairs) == len(found)


def test_images_of_one_color_have_no_duplicates() -> None:
    gray = signatures([Image.new("RGB", (64, 64), "gray")] * 3)
    assert not len(near_pairs(gray))
    assert duplicates(gray, np.zeros(3, bool)).tolist() == [-1, -1, -1]


def test_the_first_one_is_kept_unless_another_one_is_published(images: list[Image.Image]) -> None:
    astronaut, coffee = images[:2]
    found = signatures([half(astronaut), coffee, astronaut, jpeg(coffee), coffee, jpeg(astronaut)])
    nothing = np.zeros(6, bool)
    assert duplicates(found, nothing).tolist() == [-1, -1, 0, 1, 1, 0]
    published = nothing.copy()
    published[5] = True
    assert duplicates(found, published).tolist() == [5, -1, 5, 1, 1, -1]
    for kept in ([0], [1], [0, 1]):  # as in a run that goes on
        again = nothing.copy()
        again[kept] = True
        assert duplicates(found, again).tolist() == [-1, -1, 0, 1, 1, 0]


def test_a_chain_of_similar_images_keeps_what_is_near_to_nothing_kept() -> None:
    coefficients = np.random.default_rng(0).normal(0, 40, (2, 256))
    chain = [np.cos(angle) * coefficients[0] + np.sin(angle) * coefficients[1] for angle in (0.0, 0.38, 0.76)]
    found = np.zeros((3, SIGNATURE_BYTES), np.uint8)
    found[:, :256] = np.clip(chain, -127, 127).astype(np.int8).view(np.uint8)
    assert near_pairs(found).tolist() == [[0, 1], [1, 2]]
    assert duplicates(found, np.zeros(3, bool)).tolist() == [-1, 0, -1]


def test_the_hash_is_part_of_the_signature(images: list[Image.Image]) -> None:
    one, other = (phash(image) for image in images[:2])
    assert len(one) == 32 and one == hash_of(signature(images[0]))
    apart = [np.bitwise_count(np.frombuffer(one, np.uint8) ^ np.frombuffer(each, np.uint8)).sum() for each in
             (phash(jpeg(images[0])), other)]  # fmt: skip
    assert apart[0] < 20 < 80 < apart[1]
