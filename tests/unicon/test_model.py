from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny import add_random_adapter, tiny_unet
from unicon import UniCon
from unicon.adapters.config import AdapterConfig
from unicon.adapters.official import save_official

SIZES = [(32, 32), (40, 30), (30, 40), (32, 32), (200, 100), (33, 31)]
TOLERANCE = 1e-4
"""Absolute tolerance of maps in [0, 1], float32, as stated in the docstring of `unicon.model`."""


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> UniCon:
    return UniCon.from_pretrained(tiny_folder, device="cpu")


def sample_image(seed: int, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


IMAGES = [sample_image(seed, size) for seed, size in enumerate(SIZES)]


def estimate(model: UniCon, rows: list[int], **options) -> list[np.ndarray]:
    return model.estimate([IMAGES[row] for row in rows], seeds=rows, num_inference_steps=3, **options)


def test_results_have_the_size_of_their_images(model: UniCon) -> None:
    maps = estimate(model, list(range(len(SIZES))))
    assert [depth.shape for depth in maps] == [(height, width) for width, height in SIZES]
    assert all(depth.dtype == np.float32 and depth.min() >= 0 and depth.max() <= 1 for depth in maps)
    assert all(depth.std() > 1e-3 for depth in maps)


def test_a_result_belongs_to_its_row(model: UniCon) -> None:
    rows = list(range(len(SIZES)))
    together = estimate(model, rows)
    alone = [estimate(model, [row])[0] for row in rows]
    reordered = estimate(model, rows[::-1], batch_size=2)[::-1]
    for first, second, third in zip(together, alone, reordered, strict=True):
        assert np.abs(first - second).max() <= TOLERANCE
        assert np.abs(first - third).max() <= TOLERANCE


def test_image_seed_and_prompt_matter(model: UniCon) -> None:
    (base,) = model.estimate([IMAGES[0]], num_inference_steps=3)
    others = [
        model.estimate([IMAGES[0]], num_inference_steps=3, seeds=1),
        model.estimate([IMAGES[0]], num_inference_steps=3, prompts=["a cat"]),
        model.estimate([IMAGES[3]], num_inference_steps=3),
        model.estimate([IMAGES[0]], num_inference_steps=3, prompts=["a cat"], guidance_scale=3.0),
    ]
    for (other,) in others:
        assert np.abs(other - base).max() > 10 * TOLERANCE


def test_no_images_no_results(model: UniCon) -> None:
    assert model.estimate([]) == []


def test_working_size(model: UniCon) -> None:
    assert model.working_size((500, 500)) == (32, 32)
    assert model.working_size((500, 500), resolution_px=64) == (64, 64)
    assert all(side % 4 == 0 for side in model.working_size((640, 480)))
    assert estimate(model, [1], resolution_px=48)[0].shape == (30, 40)


def test_wrong_calls_are_refused(model: UniCon) -> None:
    with pytest.raises(ValueError, match="\\['depth'\\]; got 'edge'"):
        model.estimate(IMAGES, "edge")
    with pytest.raises(ValueError, match="6 images, 6 prompts, 6 negative prompts, 1 seeds"):
        model.estimate(IMAGES, seeds=[0])
    with pytest.raises(ValueError, match="1 prompts"):
        model.estimate(IMAGES, prompts=["one"])


def test_description(model: UniCon, tiny_folder: Path, tmp_path: Path) -> None:
    description = model.describe()
    assert description["weights_sha256"] == model.weights_sha256 and len(model.weights_sha256) == 64
    assert description["adapters"]["depth"]["trigger"] == "depth_map, "
    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    assert UniCon.from_pretrained(moved).weights_sha256 == model.weights_sha256
    unet = tiny_unet()
    add_random_adapter(unet, AdapterConfig(name="depth", rank=4), seed=9)
    save_official(unet, "depth", tmp_path / "published")
    other = UniCon.from_pretrained(tiny_folder, adapters={"depth": tmp_path / "published"})
    assert other.weights_sha256 != model.weights_sha256
    assert np.abs(estimate(other, [0])[0] - estimate(model, [0])[0]).max() > TOLERANCE


def test_the_model_pickles(model: UniCon) -> None:
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(estimate(copy, [0])[0], estimate(model, [0])[0])


def test_constant_prompts_are_not_encoded_again(model: UniCon, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = model.text_encoder.forward
    monkeypatch.setattr(model.text_encoder, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    estimate(model, [0], guidance_scale=2.0)
    assert calls == []
    estimate(model, [0, 3], prompts=["a cat", "a cat"])
    assert len(calls) == 1


def test_absent_models_say_so(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="Correct the path"):
        UniCon.from_pretrained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="unet/config.json"):
        UniCon.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        UniCon.from_pretrained(tiny_folder, adapters={"depth": tmp_path / "nothing.safetensors"})
    folder = shutil.copytree(tiny_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("adapters"))
    with pytest.raises(ValueError, match="at least one adapter"):
        UniCon.from_pretrained(folder)


def test_offline_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        UniCon.from_pretrained("nobody/no-such-model")


def test_half_precision_gives_nearly_the_same(tiny_folder: Path, model: UniCon) -> None:
    half = UniCon.from_pretrained(tiny_folder, device="cpu", dtype=torch.bfloat16)
    assert np.abs(estimate(half, [0])[0] - estimate(model, [0])[0]).max() < 0.05
