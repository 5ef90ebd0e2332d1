"""The small decoder decodes conditions and nothing else, each row on its own, at every size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from tests.support.tiny import MANY, write_map_decoder, write_tiny_model
from unicon import UniCon
from unicon.decoders import MapDecoder, small_decoder_config
from unicon.files.weights import MAP_DECODER

torch.set_num_threads(1)  # tiny models are slower on several threads, much slower beside other work
IMAGE = Image.fromarray(np.arange(40 * 24 * 3, dtype=np.uint8).reshape(40, 24, 3))
SMALL: dict[str, Any] = {"map_decoder": "small", "num_inference_steps": 2}
FULL: dict[str, Any] = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("model"), MANY)
    write_map_decoder(folder / MAP_DECODER)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> UniCon:
    return UniCon.from_pretrained(folder, device="cpu")


def test_the_cost_for_stable_diffusion() -> None:
    """At 512 pixels, a fiftieth of the 2.5 TFLOP of the autoencoder's own decoder."""
    with torch.device("meta"):
        decoder, latents = MapDecoder(**small_decoder_config(4, 8)), torch.empty(1, 4, 64, 64)
    with FlopCounterMode(display=False) as counter:
        assert decoder(latents).shape == (1, 3, 512, 512)
    assert counter.get_total_flops() < 0.05e12


@pytest.mark.parametrize(("channels", "scale"), [(4, 2), (4, 8), (16, 4)])
def test_sizes(channels: int, scale: int) -> None:
    decoder = MapDecoder(**small_decoder_config(channels, scale, 8))
    assert decoder(torch.zeros(2, channels, 3, 5)).shape == (2, 3, 3 * scale, 5 * scale)


def test_a_pixel_depends_on_latents_nearby_alone() -> None:
    torch.manual_seed(0)
    decoder = MapDecoder(latent_channels=4, block_out_channels=(8, 8), layers_per_block=1)
    latents = torch.randn(1, 4, 8, 24)
    other = torch.cat([latents[..., :12], torch.randn(1, 4, 8, 12)], -1)
    with torch.no_grad():
        assert torch.equal(decoder(latents)[..., :16], decoder(other)[..., :16])


def test_conditions_are_decoded_by_it_and_images_by_the_autoencoder(model: UniCon) -> None:
    small, full = (model.generate_pairs(["a"], ["depth", "pose"], **options)[0] for options in (SMALL, FULL))
    assert np.array_equal(np.asarray(small.image), np.asarray(full.image))
    assert small.conditions["depth"].shape == full.conditions["depth"].shape == (32, 32)
    assert small.conditions["pose"].shape == (32, 32, 3)
    assert all(np.abs(small.conditions[name] - full.conditions[name]).mean() > 0.01 for name in ("depth", "pose"))


def test_an_estimate_is_what_it_decodes(model: UniCon, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.map_decoder is not None
    expected = model.estimate([IMAGE], **SMALL)[0]
    monkeypatch.setattr(model, "decode_latents", lambda latents: model.map_decoder(latents))  # type: ignore[misc]
    assert np.array_equal(model.estimate([IMAGE], **FULL)[0], expected)


def test_rows_do_not_depend_on_their_neighbors(model: UniCon) -> None:
    other = IMAGE.rotate(180)
    alone, beside = model.estimate([IMAGE], **SMALL)[0], model.estimate([other, IMAGE, other], **SMALL)[1]
    assert np.abs(alone - beside).max() < 1e-4
    sizes = [each.shape for each in model.estimate([IMAGE, IMAGE.resize((50, 33))], **SMALL)]
    assert sizes == [(40, 24), (33, 50)]


def test_half_precision_keeps_rows_that_are_finite(folder: Path) -> None:
    half = UniCon.from_pretrained(folder, device="cpu", dtype="float16")
    full = UniCon.from_pretrained(folder, device="cpu")
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    latents[1] *= 6e4  # a third of the values overflows
    assert (half.decode_maps(latents)[0].float() - full.decode_maps(latents)[0]).abs().max() < 0.02


def test_a_model_without_one_refuses_before_it_reads_an_image(folder: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(folder, tmp_path / "plain"))
    shutil.rmtree(plain / "decoders")
    model = UniCon.from_pretrained(plain, device="cpu")
    with pytest.raises(ValueError, match="this model has none. Train one with jobs/train_decoder.py"):
        model.estimate(["no image"], **SMALL)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"map_decoder is one of \('vae', 'small'\); got 'tiny'"):
        model.estimate([IMAGE], map_decoder="tiny")  # type: ignore[arg-type]
    assert model.weights_sha256 == UniCon.from_pretrained(folder, device="cpu").weights_sha256
