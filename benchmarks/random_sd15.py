#!/usr/bin/env python
# diffusers declares tuples of any length as tuples of one item.
# pyright: reportArgumentType=false
"""A folder with the structure of Stable Diffusion 1.5 and adapters for depth, edges and poses with random weights.

    python benchmarks/random_sd15.py --output /tmp/sd15 --device cuda
    python benchmarks/pipeline.py efficiency --model /tmp/sd15 --steps 10

For measurements without a download of weights: the costs are real, the images meaningless.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from unicon.adapters.checkpoint import save_adapter
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import add_adapter
from unicon.decoders import MapDecoder, small_decoder_config
from unicon.files.weights import MAP_DECODER
from unicon.training.mini.text import train_tokenizer

CONDITIONS = ("depth", "edge", "pose")
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 768, 12, 12


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="device that draws the random numbers (default: %(default)s)")
    options = parser.parse_args()
    write(options.output, options.device)


def write(folder: Path, device: str) -> None:
    """Write the diffusers folder: UNet, VAE, text encoder, tokenizer, scheduler, adapters and small decoder."""
    tokenizer = train_tokenizer(["depth_map, an image"], folder / "tokenizer")
    torch.manual_seed(0)
    parts = random_parts(tokenizer, device)
    unet = parts["unet"]
    for name, part in parts.items():
        part.half().save_pretrained(folder / name)
    MapDecoder(**small_decoder_config(latent_channels=4, vae_scale=8)).half().save_pretrained(folder / MAP_DECODER)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDIMScheduler(**schedule, clip_sample=False).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "adapters").mkdir(exist_ok=True)
    for name in CONDITIONS:
        add_adapter(unet, AdapterConfig(name=name))
        save_adapter(unet, name, folder / "adapters" / f"{name}.safetensors")


def random_parts(tokenizer: CLIPTokenizer, device: str) -> dict[str, Any]:
    """The UNet, the VAE and the text encoder, in float32 on a device (for "meta", shapes alone)."""
    with torch.device(device):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=TEXT_WIDTH)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                num_hidden_layers=TEXT_LAYERS,
                num_attention_heads=TEXT_HEADS,
                max_position_embeddings=tokenizer.model_max_length,
            )
        )
    return {"unet": unet, "vae": vae, "text_encoder": text_encoder}


if __name__ == "__main__":
    main()
