# diffusers declares its configurations as plain dictionaries, and `from_config` as returning a tuple.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
"""The parts of `mini`, a small model in the shape of Stable Diffusion: building, reading and saving them.

Tested in tests/unicon/training/mini/test_train.py and tests/unicon/training/mini/test_pretrain.py.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from unicon.adapters.checkpoint import install_adapter, save_adapter
from unicon.adapters.config import AdapterConfig, read_config
from unicon.adapters.unet import add_adapter
from unicon.training.mini.text import new_text_encoder, train_tokenizer
from unicon.training.models import TrainingModels

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
}
"""The noisiest step is pure noise (arXiv 2305.08891), so that the first step of an estimate is plain regression."""


VIEWS = {"depth": 4}
"""Condition -> number of views with the lowest error of `mini`'s estimates; 1 for others."""


def new_unet(vae: AutoencoderKL, channels: tuple[int, ...], text_width: int, size_px: int) -> UNet2DConditionModel:
    """An untrained UNet in the shape of Stable Diffusion's, without attention at the finest level."""
    attention = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=size_px // 2 ** (len(vae.config.block_out_channels) - 1),
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attention),
        up_block_types=(*["CrossAttnUpBlock2D"] * attention, "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def with_finest_attention(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A UNet with the same results, with attention at the finest level on the way up.

    There a condition reads its image at full latent resolution. Training first without it takes two thirds of the time.
    """
    levels = len(unet.config.block_out_channels)
    grown = UNet2DConditionModel.from_config(unet.config, up_block_types=["CrossAttnUpBlock2D"] * levels)
    missing = grown.load_state_dict(unet.state_dict(), strict=False).missing_keys
    assert all(name.startswith(f"up_blocks.{levels - 1}.attentions.") for name in missing)
    for attention in grown.up_blocks[-1].attentions:
        torch.nn.init.zeros_(attention.proj_out.weight)
        torch.nn.init.zeros_(attention.proj_out.bias)
    return grown.to(unet.device)


def new_models(
    tokenizer_folder: Path, vae: AutoencoderKL, captions: Sequence[str], channels: tuple[int, ...], size_px: int
) -> TrainingModels:
    """An untrained UNet and text encoder, and a tokenizer that is learned from captions or found in its folder."""
    if not (tokenizer_folder / "vocab.json").exists():
        train_tokenizer(["depth_map, edge_map, pose_map, ", *captions], tokenizer_folder)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    text_encoder = new_text_encoder(tokenizer)
    unet = new_unet(vae, channels, text_encoder.config.hidden_size, size_px)
    return TrainingModels(unet, text_encoder, tokenizer, DDPMScheduler(**NOISE))


def read_models(folder: Path) -> TrainingModels:
    """Read the models of a folder that `save` wrote, in float32, to continue training."""
    return TrainingModels(
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        DDPMScheduler(**NOISE),
    )


def install_adapters(
    unet: UNet2DConditionModel, kinds: Iterable[str], rank: int, folder: Path | None, *, single_step: bool = False
) -> None:
    """Add an adapter of every kind in place: that of the folder if it has one, else an untrained one.

    They recommend estimates in one step, the mean of the possible maps. `single_step` says whether they are trained end
    to end for it.
    """
    for kind in kinds:
        views = VIEWS.get(kind, 1)
        fresh = AdapterConfig(name=kind, rank=rank, estimation_steps=1, estimation_views=views, single_step=single_step)
        install_adapter_of(unet, fresh, folder)


def install_adapter_of(unet: UNet2DConditionModel, fresh: AdapterConfig, folder: Path | None) -> None:
    """Add the folder's adapter of that name in place, or an untrained one if it has none.

    The folder's adapter gets the recommendations for estimates of `fresh`.
    """
    path = None if folder is None else folder / "adapters" / f"{fresh.name}.safetensors"
    if path is None or not path.exists():
        add_adapter(unet, fresh)
        return
    recommended = {name: getattr(fresh, name) for name in ("estimation_steps", "estimation_views", "single_step")}
    install_adapter(unet, replace(read_config(path)[0], **recommended), load_file(path), str(path))


def save(models: TrainingModels, vae: AutoencoderKL, adapters: Iterable[str], output: Path) -> None:
    """Write the diffusers folder and the adapters, with weights in float16."""
    (output / "adapters").mkdir(parents=True, exist_ok=True)
    unet = copy.deepcopy(models.unet).half()
    for name in adapters:
        save_adapter(unet, name, output / "adapters" / f"{name}.safetensors")
    plain = UNet2DConditionModel.from_config(_public_config(models.unet)).half()
    plain.load_state_dict(_without_adapters(unet.state_dict()))
    plain.save_pretrained(output / "unet")
    plain_vae = AutoencoderKL.from_config(_public_config(vae)).half()
    plain_vae.load_state_dict(vae.state_dict())
    plain_vae.save_pretrained(output / "vae")
    copy.deepcopy(models.text_encoder).half().save_pretrained(output / "text_encoder")
    models.tokenizer.save_pretrained(output / "tokenizer")
    DDIMScheduler(**NOISE, clip_sample=False, timestep_spacing="trailing").save_pretrained(output / "scheduler")
    parts = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "scheduler": "DDIMScheduler",
    }
    texts = {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    absent = [None, None]
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": absent, "feature_extractor": absent}
    index |= {name: ["diffusers", kind] for name, kind in parts.items()}
    index |= {name: ["transformers", kind] for name, kind in texts.items()}
    (output / "model_index.json").write_text(json.dumps({**index, "requires_safety_checker": False}, indent=2) + "\n")


def _public_config(model: AutoencoderKL | UNet2DConditionModel) -> dict:
    """The configuration without the private entries that loading adds, such as the path of the folder."""
    return {key: value for key, value in model.config.items() if not key.startswith("_")}


def _without_adapters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A UNet's own weights under their plain names."""
    return {
        name.replace(".base_layer.", "."): value
        for name, value in state.items()
        if ".lora_" not in name and ".processor." not in name
    }
