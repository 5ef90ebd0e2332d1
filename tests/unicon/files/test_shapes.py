"""Names and shapes derived without torch are those of the modules."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.support.paths import GOLDEN, MINI
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import adapter_shapes
from unicon.files.adapter_inspection import expected_tensors
from unicon.files.model_config import SCHEDULE_DEFAULTS
from unicon.files.shapes import TEXT_DEFAULTS, UNET_DEFAULTS, VAE_DEFAULTS, text_shapes, unet_shapes, vae_shapes
from unicon.sampling.loop import SCHEDULE_KEYS

GOLDEN_UNET = GOLDEN / "unet"
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD21 = {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
SDXL_LIKE = {
    "block_out_channels": [32, 64, 128], "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"], "transformer_layers_per_block": [1, 2, 3],
    "cross_attention_dim": 96, "attention_head_dim": 8, "use_linear_projection": True,
}  # fmt: skip
SD_VAE = {
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2,
}  # fmt: skip


def of_folder(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def shapes_of(cls: Any, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        module = cls.from_config(config)
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


UNETS = [SD15, SD21, SDXL_LIKE, {**SD15, "time_cond_proj_dim": 256}, of_folder(MINI / "unet"), of_folder(GOLDEN_UNET)]


@pytest.mark.parametrize("config", UNETS)
def test_unets(config: dict[str, Any]) -> None:
    assert unet_shapes(config) == shapes_of(UNet2DConditionModel, config)


@pytest.mark.parametrize("config", [SD_VAE, {**SD_VAE, "latent_channels": 16, "use_quant_conv": False},
                                    of_folder(MINI / "vae")])  # fmt: skip
def test_autoencoders(config: dict[str, Any]) -> None:
    assert vae_shapes(config) == shapes_of(AutoencoderKL, config)


@pytest.mark.parametrize("config", [{}, {"hidden_size": 48, "num_attention_heads": 2, "vocab_size": 100}])
def test_text_encoders(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        module = CLIPTextModel(CLIPTextConfig(**config))
    assert text_shapes(config) == {key: tuple(value.shape) for key, value in module.state_dict().items()}


def test_the_configuration_of_a_whole_clip() -> None:
    values = {"hidden_size": 48, "vocab_size": 100}
    assert text_shapes({"model_type": "clip", "text_config": values, "hidden_size": 7}) == text_shapes(values)


def test_an_unknown_family_is_left_to_loading() -> None:
    assert unet_shapes({**SD15, "addition_embed_type": "text_time"}) is None
    assert unet_shapes({**SD15, "down_block_types": ["AttnDownBlock2D"] * 4}) is None
    assert vae_shapes({**SD_VAE, "down_block_types": ["AttnDownEncoderBlock2D"] * 4}) is None


@pytest.mark.parametrize(
    "config", [AdapterConfig(name="depth", rank=4), AdapterConfig(name="id", projection="separate", rank=2,
                                                                  condition_adapter=False)]
)  # fmt: skip
@pytest.mark.parametrize("unet", [SD21, of_folder(GOLDEN_UNET)], ids=["sd21", "golden"])
def test_adapters(config: AdapterConfig, unet: dict[str, Any]) -> None:
    with torch.device("meta"):
        module = UNet2DConditionModel.from_config(unet)
    shapes = unet_shapes(unet)
    assert shapes is not None
    assert expected_tensors(shapes, config.to_dict()) == adapter_shapes(module, config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "ours", "without_effect"),
    [
        (UNet2DConditionModel, UNET_DEFAULTS, set()),
        (AutoencoderKL, VAE_DEFAULTS, {"sample_size", "latents_mean", "latents_std", "force_upcast"}),
        (DDIMScheduler, SCHEDULE_DEFAULTS, None),
    ],
)
def test_the_defaults_are_those_of_diffusers(cls: type, ours: dict[str, Any], without_effect: set[str] | None) -> None:
    parameters = {name: each.default for name, each in inspect.signature(cls.__init__).parameters.items()}
    theirs = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    assert {name: theirs[name] for name in ours} == dict(ours)
    if without_effect is not None:
        assert theirs.keys() - ours.keys() == {"self", *without_effect}


def test_the_defaults_are_those_of_transformers() -> None:
    config = CLIPTextConfig()
    assert {name: getattr(config, name) for name in TEXT_DEFAULTS} == dict(TEXT_DEFAULTS)


def test_what_counts_of_a_scheduler_is_what_sampling_reads() -> None:
    assert set(SCHEDULE_DEFAULTS) == set(SCHEDULE_KEYS)
