# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and torch optional biases.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Results are always finite: what overflows in float16 is repeated in float32, or reported as a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny import MANY, tiny_model, write_tiny_model
from unicon import UniCon
from unicon.outcomes import Failure, NonFiniteError

DEPTH = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
IMAGES = [Image.fromarray((np.stack([values] * 3, -1) * 255).astype(np.uint8)) for values in DEPTH]
MASK = np.ones((32, 32), np.float32)
CALLS: dict[str, Any] = {
    "estimate": lambda model, **options: model.estimate(IMAGES, "depth", **options),
    "views": lambda model, **options: model.estimate(IMAGES, "depth", num_views=2, **options),
    "ensemble": lambda model, **options: model.estimate_ensemble(IMAGES, "depth", ensemble_size=2, **options),
    "synthesize": lambda model, **options: model.synthesize({"depth": list(DEPTH)}, ["a", "b"], **options),
    "refine": lambda model, **options: model.refine({"depth": list(DEPTH)}, ["a", "b"], **options),
    "generate_pairs": lambda model, **options: model.generate_pairs(["a", "b"], **options),
    "inpaint": lambda model, **options: model.inpaint(IMAGES, [MASK] * 2, ["a", "b"], condition="depth", **options),
}


def arrays(result: Any) -> list[np.ndarray]:
    if isinstance(result, np.ndarray):
        return [result]
    if hasattr(result, "spread"):
        return [result.map, result.spread]
    return [np.asarray(result.image, np.float32) / 255, *result.conditions.values()]


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose VAE computes the same numbers, by way of ones that float16 does not have."""
    folder = write_tiny_model(tmp_path_factory.mktemp("overflowing"), MANY)
    model = UniCon.from_pretrained(folder, device="cpu")
    with torch.no_grad():
        for module in (model.vae.decoder, model.vae.encoder):
            module.conv_in.weight *= 3e5  # the group norms behind it make the scale up for it
            module.conv_in.bias *= 3e5
    model.vae.save_pretrained(folder / "vae")
    return folder


def test_a_vae_that_overflows_float16_gives_what_it_gives_in_float32(overflowing: Path) -> None:
    full = UniCon.from_pretrained(overflowing, device="cpu", dtype=torch.float32)
    half = UniCon.from_pretrained(overflowing, device="cpu", dtype=torch.float16)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not half.vae.decode(latents.half()).sample.isfinite().all()
    assert (half.decode_latents(latents).float() - full.decode_latents(latents)).abs().max() < 0.02
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert (half.encode_images(pixels).float() - full.encode_images(pixels)).abs().max() < 0.02
    for one, other in zip(
        half.generate_pairs(["a", "b"], num_inference_steps=2),
        full.generate_pairs(["a", "b"], num_inference_steps=2),
        strict=True,
    ):
        for found, expected in zip(arrays(one), arrays(other), strict=True):
            assert np.abs(found - expected).mean() < 0.05 and found.std() > 1e-3


def test_a_row_that_is_fine_in_float16_keeps_its_result_beside_one_that_is_not(overflowing: Path) -> None:
    half = UniCon.from_pretrained(overflowing, device="cpu", dtype=torch.float16)
    decode, wide = half.vae.decode, half._fallback._in_float32(half.vae)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def second_overflows(values: torch.Tensor) -> Any:
        decoded = decode(values.float().half())
        decoded.sample = torch.full_like(decoded.sample, 0.25)
        decoded.sample[1] = torch.nan
        return decoded

    half.vae.decode = second_overflows  # type: ignore[method-assign]
    both = half.decode_latents(latents)
    assert (both[0] == 0.25).all()
    assert torch.equal(both[1], wide.decode(latents[1:] / half.vae.config.scaling_factor).sample[0])  # type: ignore[operator]


@pytest.mark.parametrize("name", CALLS)
def test_a_row_that_overflows_is_told_and_the_others_are_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever overflows in the denoiser: the row of seed 7."""
    model = tiny_model()
    expected = CALLS[name](model, seeds=[1, 2], num_inference_steps=2, batch_size=1)
    noise = torch.randn

    def overflow(shape: Any, generator: torch.Generator, **options: Any) -> torch.Tensor:
        drawn = noise(shape, generator=generator, **options)
        return drawn * torch.inf if generator.initial_seed() == 7 else drawn

    monkeypatch.setattr("unicon.sampling.samplers.torch.randn", overflow)
    with pytest.raises(NonFiniteError, match=r"1 of 2 rows are not \(rows 1\).*not finite in float32") as caught:
        CALLS[name](model, seeds=[1, 7], num_inference_steps=2)
    good, bad = caught.value.outcomes
    assert isinstance(bad, Failure) and len(bad.reason) <= 200
    for found, wanted in zip(arrays(good), arrays(expected[0]), strict=True):
        assert np.abs(found - wanted).max() <= 1.01 / 255


def test_the_cure_of_float16_is_named(overflowing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = UniCon.from_pretrained(overflowing, device="cpu", dtype=torch.float16)
    monkeypatch.setattr("unicon.sampling.samplers.torch.randn", lambda shape, generator: torch.full(shape, torch.nan))
    with pytest.raises(NonFiniteError, match=r"in float16: try bfloat16 or float32 \(--dtype\)"):
        half.estimate(IMAGES[:1], "depth", num_inference_steps=1)
