"""The autoencoder of a small Stable Diffusion: trained on scenes and their condition maps.

Shapes: ``B`` crops, ``h w`` latent size, ``C`` latent channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor

from unicon.training.fit import FitConfig, fit
from unicon.training.mini.scene_cache import SceneArrays
from unicon.training.pairs import encode_latents

KL_WEIGHT = 3e-4
"""Weight of the KL divergence a latent element beside the L1 error a pixel element."""
GRADIENT_WEIGHT = 0.5
"""Weight of the L1 error of horizontal and vertical differences: it keeps edges sharp."""
SQUARE_WEIGHT = 2.0
"""Weight of the squared error: with L1 alone, lines that are still uncertain are best left out."""
SHARES = {"image": 0.45, "depth": 0.2, "edge": 0.2, "pose": 0.15}
"""What the crops show: pictures, inverse depth maps, edge maps, pose drawings."""


def new_vae(size_px: int = 128) -> AutoencoderKL:
    """An untrained autoencoder with factor 8 and 8 latent channels."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=1,  # more groups would normalise the mean colour of a picture away in so few channels
        sample_size=size_px,
        mid_block_add_attention=False,
    )
    start_from_pyramid(vae)
    return vae


COLORS = 3
SMALL_LOGVAR = -5.0
"""Initial log variance of the latents: little noise until the network has learned something worth hiding."""


@torch.no_grad()
def start_from_pyramid(vae: AutoencoderKL) -> None:
    """Initialise in place so that three latent channels start as the picture's mean colours, 8 times smaller.

    A plain random start spends most of a short training on finding out that pictures have colours. Here the first
    channels of every layer carry red, green and blue through averaging and smoothing filters; all others stay random.
    """
    smooth = torch.tensor([0.25, 0.5, 0.25]).outer(torch.tensor([0.25, 0.5, 0.25]))
    average = torch.zeros(3, 3)
    average[:2, :2] = 0.25
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight[: 2 * COLORS] = 0
            if module.conv_shortcut is not None:
                _pass_colors(module.conv_shortcut)
        elif isinstance(module, Downsample2D):
            _pass_colors(module.conv, average)
        elif isinstance(module, Upsample2D):
            _pass_colors(module.conv, smooth)
    for coder in (vae.encoder, vae.decoder):
        _pass_colors(coder.conv_in)
        last = [module for module in coder.modules() if isinstance(module, ResnetBlock2D) and module.conv_shortcut]
        block = coder.down_blocks[-1] if coder is vae.encoder else coder.up_blocks[-1]
        _split_signs(next(r.conv_shortcut for r in block.resnets if r in last))
        _join_signs(coder.conv_out)
    for conv in (vae.quant_conv, vae.post_quant_conv):
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    vae.encoder.conv_out.weight[vae.config.latent_channels :] *= 0.1
    vae.encoder.conv_out.bias[vae.config.latent_channels :] = SMALL_LOGVAR


def _pass_colors(conv: torch.nn.Conv2d, kernel: Tensor | None = None) -> None:
    """Make the first three outputs the first three inputs, filtered."""
    size = conv.kernel_size[0]
    if kernel is None:
        kernel = torch.zeros(size, size)
        kernel[size // 2, size // 2] = 1
    conv.weight[:COLORS] = 0
    conv.bias[:COLORS] = 0
    for channel in range(COLORS):
        conv.weight[channel, channel] = kernel


def _split_signs(shortcut: torch.nn.Conv2d) -> None:
    """Give each colour a second, negated channel: silu(x) - silu(-x) = x."""
    shortcut.weight[COLORS : 2 * COLORS] = -shortcut.weight[:COLORS]
    shortcut.bias[COLORS : 2 * COLORS] = 0


def _join_signs(conv_out: torch.nn.Conv2d) -> None:
    _pass_colors(conv_out)
    for channel in range(COLORS):
        conv_out.weight[channel, COLORS + channel] = -conv_out.weight[channel, channel]


def train_vae(
    vae: AutoencoderKL, scenes: SceneArrays, config: FitConfig, folder: Path, batch_size: int = 32, crop_px: int = 64
) -> None:
    """Train in place; afterwards ``vae.config.scaling_factor`` makes the latents' standard deviation 1.

    Args:
        vae: what to train.
        scenes: pictures and maps to reconstruct.
        config: see ``fit``.
        folder: checkpoints, log and ``reconstruction-STEP.png``.
        batch_size: crops a step.
        crop_px: width and height of a crop.
    """

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        crops = sample_crops(scenes, batch_size, crop_px, generator)
        crops = crops.to(vae.device, memory_format=torch.channels_last)
        posterior = vae.encode(crops).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(vae.device)
        return vae_loss(crops, vae.decode(posterior.mean + posterior.std * noise).sample, posterior.kl())

    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit(dict(vae.named_parameters()), loss, config, folder)
    vae.register_to_config(scaling_factor=1 / latent_std(vae, scenes))


def vae_loss(target: Tensor, reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """L1, squared error, L1 of differences, and KL, each a mean in fp32.

    Args:
        target, reconstruction: (B, 3, H, W) in [-1, 1].
        kl: (B,) divergence summed over a row's latent.
    """
    difference = reconstruction.float() - target
    l1, square = difference.abs().mean(), difference.square().mean()
    slope = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    divergence = kl.float().mean() / (target.shape[2] * target.shape[3] / 8)
    loss = l1 + SQUARE_WEIGHT * square + GRADIENT_WEIGHT * slope + KL_WEIGHT * divergence
    return {"loss": loss, "l1": l1, "square": square, "kl": divergence}


def sample_crops(scenes: SceneArrays, count: int, crop_px: int, generator: torch.Generator) -> Tensor:
    """Random crops (B, 3, crop, crop) in [-1, 1] of pictures and maps, flipped half of the time."""
    names, shares = list(SHARES), torch.tensor(list(SHARES.values()))
    size = scenes.images.shape[1]
    crops = []
    for kind in torch.multinomial(shares, count, replacement=True, generator=generator).tolist():
        scene, top, left, flip = (
            int(torch.randint(limit, (), generator=generator))
            for limit in (len(scenes.images), size - crop_px + 1, size - crop_px + 1, 2)
        )
        window = np.s_[scene, top : top + crop_px, left : left + crop_px]
        crop = map_pixels(scenes, names[kind], window)
        crops.append(crop[:, ::-1] if flip else crop)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def map_pixels(scenes: SceneArrays, kind: str, window) -> np.ndarray:
    """Pixels (..., 3) float32 in [-1, 1] of pictures (``image``), ``depth``, ``edge`` or ``pose`` maps."""
    if kind in ("image", "pose"):
        pixels = scenes.images if kind == "image" else scenes.poses
        return pixels[window].astype(np.float32) / 127.5 - 1
    if kind == "depth":
        values = scenes.inverse_depths[window].astype(np.float32) / 32767.5 - 1
    else:
        values = scenes.edges[window].astype(np.float32) * 2 - 1
    return np.repeat(values[..., None], 3, -1)


def encode_maps(vae: AutoencoderKL, scenes: SceneArrays, kind: str, part_size: int = 64) -> Tensor:
    """(S, c, h, w) scaled latents of a kind of picture; ``part_size`` scenes at a time are pixels in float32."""
    windows = (np.s_[start : start + part_size] for start in range(0, len(scenes.captions), part_size))
    pixels = (torch.from_numpy(map_pixels(scenes, kind, window)).permute(0, 3, 1, 2) for window in windows)
    return torch.cat([encode_latents(vae, part) for part in pixels])


@torch.no_grad()
def latent_std(vae: AutoencoderKL, scenes: SceneArrays, count: int = 64) -> float:
    """Standard deviation of the unscaled latents of the first pictures and depth maps."""
    latents = []
    for kind in ("image", "depth"):
        pixels = torch.from_numpy(map_pixels(scenes, kind, np.s_[:count])).permute(0, 3, 1, 2)
        latents.append(vae.encode(pixels.to(vae.device)).latent_dist.mean)
    return float(torch.cat(latents).std())
