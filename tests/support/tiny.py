# diffusers declares tuples of any length as tuples of one item.
# pyright: reportArgumentType=false
"""A tiny Stable Diffusion folder with random weights and random adapters: real components, meaningless images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from unicon import UniCon
from unicon.adapters.checkpoint import save_adapter
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import adapter_parameters, add_adapter
from unicon.decoders import MapDecoder

DEPTH = AdapterConfig(name="depth", rank=4)
MANY = (
    AdapterConfig(name="depth", rank=4, estimation_steps=2),
    AdapterConfig(name="edge", rank=2),
    AdapterConfig(name="pose", rank=4),
    AdapterConfig(name="appearance", rank=2, projection="separate", condition_adapter=False),
    AdapterConfig(name="id", rank=2, projection="separate", condition_adapter=False),
)
"""One adapter of each kind: fused and separate, with and without a condition adapter."""
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_,. "


def tiny_unet(*, use_linear_projection: bool = True) -> UNet2DConditionModel:
    """Build a UNet of two resolutions and six transformer blocks, by default structured as Stable Diffusion 2."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        use_linear_projection=use_linear_projection,
    )


def add_random_adapter(unet: UNet2DConditionModel, config: AdapterConfig, *, seed: int = 1) -> None:
    """Add an adapter whose weights are all random, so that each of them affects the result."""
    add_adapter(unet, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(unet, config.name):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def write_tiny_tokenizer(folder: Path) -> None:
    """Write a CLIP tokenizer whose tokens are single letters."""
    folder.mkdir(parents=True, exist_ok=True)
    symbols = [*(LETTERS.replace(" ", "")), *(letter + "</w>" for letter in LETTERS.replace(" ", ""))]
    vocabulary = {symbol: index for index, symbol in enumerate([*symbols, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=12
    ).save_pretrained(folder)


def write_tiny_model(folder: Path, adapters: Sequence[AdapterConfig] = (DEPTH,), **schedule) -> Path:
    """Write a model folder: unet, vae (2 pixels per latent pixel), text_encoder, tokenizer, scheduler, adapters.

    Args:
        folder: Where to write.
        adapters: The adapters to add, with random weights.
        schedule: Settings of the scheduler that differ from those of Stable Diffusion 1.5.
    """
    unet = tiny_unet()
    unet.save_pretrained(folder / "unet")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    vae.save_pretrained(folder / "vae")
    write_tiny_tokenizer(folder / "tokenizer")
    tokens = len(LETTERS.replace(" ", "")) * 2
    text = CLIPTextConfig(
        vocab_size=tokens + 2, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=12, projection_dim=24, bos_token_id=tokens, eos_token_id=tokens + 1,
        pad_token_id=tokens + 1,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                  set_alpha_to_one=False, steps_offset=1, **schedule).save_pretrained(folder / "scheduler")  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "adapters").mkdir()
    for seed, config in enumerate(adapters, start=1):
        add_random_adapter(unet, config, seed=seed)
        save_adapter(unet, config.name, folder / "adapters" / f"{config.name}.safetensors")
    return folder


def write_tiny_vae(place: Path, *, latent_channels: int = 4, levels: int = 2, scaling_factor: float = 1.0) -> Path:
    """Write an AutoencoderTiny of random weights, by default for the latents of `write_tiny_model`."""
    torch.manual_seed(5)
    AutoencoderTiny(
        encoder_block_out_channels=(8,) * levels, num_encoder_blocks=(1,) * levels,
        decoder_block_out_channels=(12,) * levels, num_decoder_blocks=(1,) * levels,
        latent_channels=latent_channels, scaling_factor=scaling_factor,
    ).save_pretrained(place)  # fmt: skip
    return place


def write_map_decoder(place: Path, *, latent_channels: int = 4, widths: Sequence[int] = (8,)) -> Path:
    """Write a small decoder of maps of random weights, by default for the latents of `write_tiny_model`."""
    torch.manual_seed(6)
    decoder = MapDecoder(latent_channels=latent_channels, block_out_channels=tuple(widths), layers_per_block=1)
    torch.nn.init.normal_(decoder.blocks[0][0].conv2.weight, std=0.2)  # type: ignore[index]
    decoder.save_pretrained(place)
    return place


@cache
def tiny_model() -> UniCon:
    """Return a tiny float32 model on the CPU with an adapter of each kind; all tests share it, as none changes it."""
    with TemporaryDirectory() as folder:
        return UniCon.from_pretrained(write_tiny_model(Path(folder), MANY), device="cpu")
