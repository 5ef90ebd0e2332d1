"""Several conditions in one pass equal their single runs; tests/unicon/test_one_way.py has every kind of adapter."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny import tiny_model
from unicon import UniCon
from unicon.unet_call import run_unet

TOLERANCE = 1e-4
"""Absolute tolerance of maps in [0, 1], float32, as stated in `unicon.model`."""
NAMES = ["edge", "depth", "pose"]
IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    for seed, size in enumerate([(30, 40), (32, 32)])
]


def counted() -> tuple[UniCon, list[int], list[int]]:
    """A model, and the numbers of rows that its UNet and its encoder get."""
    model, rows, encoded = copy.copy(tiny_model()), [], []
    encode = model.encode_images

    def run(unet: Any, layout: Any, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows.append(layout.num_rows)
        return run_unet(unet, layout, *tensors)

    def encode_images(pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return encode(pixels)

    model.run_unet, model.encode_images = run, encode_images
    return model, rows, encoded


@pytest.mark.parametrize("settings", [{}, {"one_way": True}, {"one_way": True, "num_views": 2}], ids=str)
def test_several_conditions_equal_their_single_runs(settings: dict[str, Any]) -> None:
    model, options = tiny_model(), {"num_inference_steps": 2, "seeds": [3, 1], **settings}
    together = model.estimate(IMAGES, NAMES, **options)
    assert all(list(maps) == NAMES for maps in together)
    for name in NAMES:
        for maps, alone in zip(together, model.estimate(IMAGES, name, **options), strict=True):
            assert np.abs(maps[name] - alone).max() <= TOLERANCE


def test_an_image_is_encoded_once_and_shared() -> None:
    model, rows, encoded = counted()
    model.estimate(IMAGES[1:2], NAMES, num_inference_steps=1)
    assert (rows, encoded) == ([6], [1])  # each condition changes its own copy of the image
    rows.clear()
    model.estimate(IMAGES[1:2], NAMES, num_inference_steps=1, one_way=True)
    assert rows == [1, 3]


def test_conditions_with_other_recommendations_take_another_pass() -> None:
    model, rows, encoded = counted()
    (maps,) = model.estimate(IMAGES[1:2], NAMES, one_way=True)  # depth recommends 2 steps, the others 10
    assert (rows, encoded) == ([1, *[2] * 10, 1, 1, 1], [1])
    assert list(maps) == NAMES


def test_ensembles_of_several_conditions() -> None:
    model, options = tiny_model(), {"num_inference_steps": 1, "ensemble_size": 2, "one_way": True}
    (together,) = model.estimate_ensemble(IMAGES[:1], ("edge", "depth"), **options)
    for name, estimate in together.items():
        (alone,) = model.estimate_ensemble(IMAGES[:1], name, **options)
        assert np.abs(estimate.map - alone.map).max() <= TOLERANCE
        assert np.abs(estimate.spread - alone.spread).max() <= TOLERANCE


@pytest.mark.parametrize("names", [[], ["depth", "depth"]])
def test_names_are_given_once(names: list[str]) -> None:
    with pytest.raises(ValueError, match="at least one condition, and each once"):
        tiny_model().estimate(IMAGES, names)
