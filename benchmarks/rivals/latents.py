# diffusers declares its outputs as tuples and its configurations as plain dictionaries.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Between pixels and latents, and sampling, for rivals that have no library of their own.

Shapes: B rows, c h w latents, H W pixels. Row b draws its noise from seed b.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.rivals.base import Base
from benchmarks.rivals.data import DEPTH
from unicon.autoencoders import decode_scaled, encode_scaled
from unicon.conditions import CONDITIONS, rgb_from_model
from unicon.options import SamplingOptions
from unicon.sampling.loop import Denoise, noise_levels, sample, starting_latents
from unicon.sampling.samplers import row_noise
from unicon.sampling.step_table import StepTable

ROWS = 4
"""Rows that the autoencoder processes at once, with which it is fastest on a CPU."""


def image_pixels(images: Sequence[np.ndarray]) -> Tensor:
    """Images (H, W, 3) uint8 -> (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def map_pixels(maps: Sequence[np.ndarray]) -> Tensor:
    """Depth maps (H, W) in [0, 1] -> (B, 3, H, W) in [-1, 1]."""
    return torch.stack([CONDITIONS[DEPTH].to_model(values) for values in maps])


@torch.no_grad()
def encoded(base: Base, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1] -> scaled latents (B, c, h, w)."""
    return torch.cat([encode_scaled(base.vae, part) for part in pixels.split(ROWS)])


@torch.no_grad()
def decoded_images(base: Base, latents: Tensor) -> list[np.ndarray]:
    """Scaled latents (B, c, h, w) -> images (H, W, 3) uint8."""
    found = [rgb_from_model(row) for part in latents.split(ROWS) for row in decode_scaled(base.vae, part)]
    return [np.rint(values * 255).astype(np.uint8) for values in found]


@torch.no_grad()
def decoded_maps(base: Base, latents: Tensor) -> list[np.ndarray]:
    """Scaled latents (B, c, h, w) -> depth maps (H, W) in [0, 1]."""
    return [CONDITIONS[DEPTH].from_model(row) for part in latents.split(ROWS) for row in decode_scaled(base.vae, part)]


@torch.no_grad()
def embedded(base: Base, prompts: Sequence[str]) -> Tensor:
    """Prompts -> their embeddings (B, M, D)."""
    return base.models.encode_prompts(prompts)


def sampled(
    base: Base, denoise: Denoise, table: StepTable, given: Sequence[Tensor | None], count: int
) -> Sequence[Tensor]:
    """Sample `count` rows with DDIM, and return the latents (B, c, h, w) of every role.

    Args:
        base: The base, whose noise schedule is used.
        denoise: What predicts for the rows of all roles.
        table: The path of every role.
        given: For every role its clean latents (B, c, h, w), or None where it starts from noise.
        count: Number of rows of a role.
    """
    options = SamplingOptions(num_inference_steps=table.num_inference_steps)
    levels = noise_levels(base.models.scheduler.config, options)
    config, device = base.models.unet.config, torch.device("cpu")
    shape = (config.in_channels, config.sample_size, config.sample_size)
    generators = [torch.Generator().manual_seed(row) for row in range(count)]
    noise = torch.cat([row_noise(shape, generators, device) for _ in given])
    clean = torch.cat([torch.zeros(count, *shape) if each is None else each for each in given])
    roles = [slice(at * count, (at + 1) * count) for at in range(len(given))]
    start = starting_latents(levels, table, roles, clean, noise)
    return sample(denoise, start, levels, table, roles).split(count)
