# diffusers declares its outputs as tuples and its configurations as plain dictionaries.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
"""A model works with an AutoencoderTiny as with an AutoencoderKL, in its folder or from elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image

from tests.support.tiny import write_tiny_vae
from unicon import UniCon
from unicon.autoencoders import decode_scaled, encode, encode_scaled

torch.set_num_threads(1)  # tiny models are slower on several threads, much slower beside other work
IMAGE = Image.fromarray(np.arange(40 * 24 * 3, dtype=np.uint8).reshape(40, 24, 3))
SETTINGS: dict[str, Any] = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vae(tmp_path_factory.mktemp("vae") / "taesd", scaling_factor=0.5)


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tiny_vae: Path) -> UniCon:
    return UniCon.from_pretrained(tiny_folder, vae=tiny_vae, device="cpu")


def test_the_latents_are_scaled_by_the_factor_of_the_autoencoder_in_use(model: UniCon, tiny_vae: Path) -> None:
    theirs = AutoencoderTiny.from_pretrained(tiny_vae)
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = theirs.encode(pixels).latents
        assert torch.equal(model.encode_images(pixels), latents * 0.5)
        assert torch.equal(model.decode_latents(latents * 0.5), theirs.decode(latents).sample)
    assert latents.shape == (2, 4, 16, 24) and model.vae_scale == 2 and model.native_px == 32


def test_an_autoencoder_with_a_shift() -> None:
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, shift_factor=0.25, scaling_factor=2.0)
    pixels = torch.zeros(1, 3, 8, 8)
    with torch.no_grad():
        latents = encode(vae, pixels)
        assert torch.equal(encode_scaled(vae, pixels), (latents - 0.25) * 2)
        expected = vae.decode(((latents - 0.25) * 2) / 2 + 0.25).sample
        assert torch.equal(decode_scaled(vae, (latents - 0.25) * 2), expected)


def test_it_is_the_same_in_the_folder_and_beside_it(
    model: UniCon, tiny_folder: Path, tiny_vae: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    shutil.rmtree(folder / "vae")
    shutil.copytree(tiny_vae, folder / "vae")
    inside = UniCon.from_pretrained(folder, device="cpu")
    own = UniCon.from_pretrained(tiny_folder, device="cpu")
    first, second, other = (each.estimate([IMAGE], **SETTINGS)[0] for each in (model, inside, own))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    assert first.shape == (40, 24) and np.isfinite(first).all()
    assert model.weights_sha256 == inside.weights_sha256 != own.weights_sha256
    assert model.describe()["vae"] == str(tiny_vae) and "vae" not in own.describe()


def test_rows_do_not_depend_on_their_neighbors(model: UniCon) -> None:
    alone, beside = model.generate_pairs(["a"], **SETTINGS)[0], model.generate_pairs(["b", "a"], **SETTINGS)[1]
    assert np.abs(alone.conditions["depth"] - beside.conditions["depth"]).max() < 1e-4
    assert np.abs(np.asarray(alone.image, np.int16) - np.asarray(beside.image, np.int16)).max() <= 1


def test_another_kl_autoencoder_may_take_its_place(tiny_folder: Path) -> None:
    same = UniCon.from_pretrained(tiny_folder, vae=tiny_folder, device="cpu")
    own = UniCon.from_pretrained(tiny_folder, device="cpu")
    assert isinstance(same.vae, AutoencoderKL) and same.weights_sha256 == own.weights_sha256


def test_weights_are_checked_against_the_configuration(tiny_folder: Path, tiny_vae: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny_vae, tmp_path / "taesd"))
    shutil.copy(tiny_folder / "vae" / "diffusion_pytorch_model.safetensors", place)
    with pytest.raises(ValueError, match="A part of a model holds exactly the tensors of its config.json; .*taesd has"):
        UniCon.from_pretrained(tiny_folder, vae=place, device="cpu")
