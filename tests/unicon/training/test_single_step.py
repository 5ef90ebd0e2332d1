# diffusers declares `from_pretrained` as returning a tuple too.
# pyright: reportArgumentType=false
"""Training for a single step has the inputs of such an estimate, and lowers the error of the maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from PIL import Image

from tests.support.tiny import MANY, write_tiny_model
from unicon import UniCon
from unicon.adapters.checkpoint import load_adapter
from unicon.adapters.unet import named_adapter_parameters
from unicon.images import to_model
from unicon.sampling.samplers import row_noise
from unicon.training.fit import FitConfig, fit
from unicon.training.mini.models import read_models
from unicon.training.models import TrainingModels
from unicon.training.pairs import encode_latents
from unicon.training.single_step import DrawnMaps, SingleStepLoss, SingleStepSampling

KINDS = ("depth", "edge")
SIZE_PX = 32


class Ramps:
    """Images of noise whose depth is always a ramp and whose edges are always one line."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae

    def draw_maps(self, generator: torch.Generator, batch_size: int) -> DrawnMaps:
        """See `MapSource`."""
        images = torch.rand((batch_size, 3, SIZE_PX, SIZE_PX), generator=generator) * 2 - 1
        ramp = torch.linspace(-1, 1, SIZE_PX).expand(batch_size, 3, SIZE_PX, SIZE_PX)
        line = torch.full_like(ramp, -1)
        line[..., 8] = 1
        maps = {"depth": ramp, "edge": line}
        latents = {kind: encode_latents(self.vae, each) for kind, each in maps.items()}
        return DrawnMaps(encode_latents(self.vae, images), latents, maps, ["a"] * batch_size)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    zero_terminal_snr = request.param == "v_prediction"
    path = tmp_path_factory.mktemp(request.param)
    return write_tiny_model(path, MANY, prediction_type=request.param, rescale_betas_zero_snr=zero_terminal_snr)


def loss_of(folder: Path, kinds: tuple[str, ...] = KINDS, **sampling) -> SingleStepLoss:
    read = read_models(folder)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    models = TrainingModels(read.unet.requires_grad_(False), read.text_encoder, read.tokenizer, scheduler)
    for kind in kinds:
        load_adapter(models.unet, folder / "adapters" / f"{kind}.safetensors")
    vae = AutoencoderKL.from_pretrained(folder / "vae").requires_grad_(False)
    return SingleStepLoss(models, vae, kinds, Ramps(vae), SingleStepSampling(batch_size=2, **sampling))


def test_a_step_computes_what_an_estimate_in_one_step_does(folder: Path) -> None:
    """The maps of training and of `UniCon.estimate` are equal, for two adapters beside one image row."""
    loss, model = loss_of(folder), UniCon.from_pretrained(folder, device="cpu")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)) for _ in range(2)]
    latents = model.encode_images(torch.stack([to_model(image, image.size) for image in images])).float()
    generators = [torch.Generator().manual_seed(0) for _ in images]
    noise = row_noise(latents.shape[1:], generators, latents.device)
    prompts = ["", "", "depth_map, ", "depth_map, ", "edge_map, ", "edge_map, "]
    with torch.no_grad():
        _, trained = loss.estimate(latents, noise.repeat(2, 1, 1, 1), loss.models.encode_prompts(prompts))
        for kind in KINDS:
            expected = model.estimate(images, kind, num_inference_steps=1, num_views=1, one_way=True)
            found = loss.decode(trained[kind], kind)[:, 0].clamp(0, 1)
            assert np.abs(found.numpy() - np.stack(expected)).max() < 1e-4


def test_the_image_rows_do_not_depend_on_their_conditions(folder: Path) -> None:
    loss = loss_of(folder)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn((2, 4, 16, 16), generator=generator), torch.randn((4, 4, 16, 16), generator=generator)
    embeds = torch.randn((6, 12, 24), generator=generator)
    with torch.no_grad():
        output, _ = loss.estimate(images, noise, embeds)
        alone = loss.models.unet(images, torch.zeros(2), embeds[:2]).sample
    assert torch.allclose(output.prediction[:2], alone, atol=1e-5)


def test_a_few_steps_lower_the_loss_of_the_maps(folder: Path, tmp_path: Path) -> None:
    loss = loss_of(folder, caption_dropout=0.5)
    unet = loss.models.unet
    named = {kind: named_adapter_parameters(unet, kind) for kind in KINDS}
    parameters = {f"{kind}.{name}": each for kind in KINDS for name, each in named[kind].items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    config = FitConfig(steps=5, learning_rate=1e-2, warmup_steps=1, ema_decay=0.0, checkpoint_every=5, log_every=5)
    before = loss(torch.Generator().manual_seed(99))
    fit(parameters, loss, config, tmp_path)
    after = loss(torch.Generator().manual_seed(99))
    assert set(after) == {"loss", "depth_maps", "edge_maps"}
    assert after["loss"] < before["loss"]


def test_only_a_part_is_decoded_and_the_rest_is_compared_as_latents(folder: Path) -> None:
    loss = loss_of(folder, decoded_fractions={"depth": 0.5, "edge": 0.0})
    decoded: list[int] = []
    loss.vae.decoder.register_forward_pre_hook(lambda module, inputs: decoded.append(len(inputs[0])))
    assert set(loss(torch.Generator().manual_seed(0))) == {"loss", "depth_maps", "depth_latents", "edge_latents"}
    assert decoded == [1]


def test_wrong_values_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="fractions lie in"):
        SingleStepSampling(decoded_fractions={"depth": 1.5})
    with pytest.raises(
        ValueError, match=r"are trained for \['depth', 'edge', 'normal', 'pose'\]; got \['appearance'\]"
    ):
        loss_of(folder, ("appearance",))
