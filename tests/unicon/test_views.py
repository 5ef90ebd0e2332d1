"""Views of an image: the inputs of the model, and the averages of their maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.tiny import tiny_model
from unicon.conditions import CONDITIONS
from unicon.views import VIEWS, average_views, expand_views, views_of


def sample_image(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_mean_is_over_upright_maps_of_one_image() -> None:
    views = VIEWS[4]
    truth = [np.arange(12, dtype=np.float32).reshape(3, 4) + 100 * row for row in range(2)]
    maps = [np.flip(values, 1) if view.mirrored else values for values in truth for view in views]
    for found, expected in zip(average_views(maps, views), truth, strict=True):
        np.testing.assert_array_equal(found, expected)
    maps[1] = maps[1] + 4
    np.testing.assert_array_equal(average_views(maps, views)[0], truth[0] + 1)


def test_an_estimate_of_several_views_is_the_mean_of_theirs() -> None:
    model = tiny_model()
    images = [sample_image(), sample_image(17, 30, 1)]
    found = model.estimate(images, "depth", seeds=[3, 4], num_views=4)
    larger = round(1.25 * model.native_px)
    for image, seed, result in zip(images, (3, 4), found, strict=True):
        parts = []
        for resolution_px in (model.native_px, larger):
            parts += model.estimate([image], "depth", seeds=[seed], num_views=1, resolution_px=resolution_px)
            mirrored = model.estimate(
                [ImageOps.mirror(image)], "depth", seeds=[seed], num_views=1, resolution_px=resolution_px
            )
            parts.append(np.flip(mirrored[0], 1))
        np.testing.assert_allclose(result, np.mean(parts, 0), atol=1e-4)
        assert result.shape == (image.height, image.width)


def test_requests_that_share_an_image_share_its_mirror_image() -> None:
    model = tiny_model()
    requests = model._requests([(24, 16)] * 2, None, None, 0, None)
    shared = sample_image()
    found = expand_views([replace(request, image=shared) for request in requests], VIEWS[4], lambda size, scale: size)
    assert len({id(request.image) for request in found}) == 2


def test_a_kind_that_tells_left_from_right_is_not_mirrored() -> None:
    assert len(views_of(CONDITIONS["pose"], 2)) == 2
    with pytest.raises(ValueError, match=r"pose map is the mean of \[1, 2\] views; got 4"):
        views_of(CONDITIONS["pose"], 4)
    with pytest.raises(ValueError, match="got 3"):
        views_of(CONDITIONS["depth"], 3)
