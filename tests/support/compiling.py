# diffusers declares tuples of any length as tuples of one item.
# pyright: reportArgumentType=false
"""The smallest Stable Diffusion of random weights that has all kinds of layers, since compiling takes long."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from tests.support.tiny import add_random_adapter, write_tiny_model
from unicon import UniCon
from unicon.adapters.config import AdapterConfig
from unicon.adapters.merge import merge_adapters
from unicon.compilation.compiled import Compilation

DEPTH = AdapterConfig(name="depth", rank=2, estimation_steps=2)


def smallest_unet() -> UNet2DConditionModel:
    """Return a UNet in inference form with one down and one up block, and a random depth adapter."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), mid_block_type=None, cross_attention_dim=24, attention_head_dim=2,
        norm_num_groups=2, use_linear_projection=True,
    )  # fmt: skip
    add_random_adapter(unet, DEPTH)
    return merge_adapters(unet)


def smallest_model(folder: Path, compilation: Compilation) -> UniCon:
    """Return a float32 model on the CPU with two pixels per latent pixel, using `folder` for files."""
    tiny = UniCon.from_pretrained(write_tiny_model(folder), device="cpu")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(4, 4), latent_channels=4, norm_num_groups=2, sample_size=16, layers_per_block=1,
        mid_block_add_attention=False,
    ).eval().requires_grad_(False)  # fmt: skip
    return UniCon(
        unet=smallest_unet(), vae=vae, text_encoder=tiny.text_encoder, tokenizer=tiny.tokenizer,
        scheduler=tiny.scheduler, description={}, timestep_spacing="trailing", compilation=compilation,
    )  # fmt: skip
