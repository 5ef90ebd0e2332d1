# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and torch the children of
# modules loosely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""The autoencoder of `mini`, trained on scenes and their condition maps.

Shapes: B crops, h w latent size, C latent channels.

Tested in tests/unicon/training/mini/test_train.py.
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
"""Weight of the KL divergence per latent element, relative to the L1 error per pixel element."""
GRADIENT_WEIGHT = 0.5
"""Weight of the L1 error of horizontal and vertical differences, which keeps edges sharp."""
SQUARE_WEIGHT = 2.0
"""Weight of the squared error. With L1 alone, omitting lines that are still uncertain gives the lowest loss."""
SHARES = {"image": 0.45, "depth": 0.2, "edge": 0.2, "pose": 0.15}
"""Shares of images, inverse depth maps, edge maps and pose drawings among the crops."""


def new_vae(size_px: int = 128) -> AutoencoderKL:
    """An untrained autoencoder with factor 8 and 8 latent channels."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=1,  # with more groups, normalization would remove the mean color of an image
        sample_size=size_px,
        mid_block_add_attention=False,
    )
    start_from_pyramid(vae)
    return vae


COLORS = 3
SMALL_LOGVAR = -5.0
"""Initial log variance of the latents, so that there is little noise at first."""


@torch.no_grad()
def start_from_pyramid(vae: AutoencoderKL) -> None:
    """Initialize in place so that three latent channels start as the image's mean colors, 8 times smaller.

    With a plain random start, most of a short training would be spent on learning that images have colors. Here the
    first channels of every layer pass red, green and blue through averaging and smoothing filters. All others stay
    random.
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
    """Give each color a second, negated channel: silu(x) - silu(-x) = x."""
    shortcut.weight[COLORS : 2 * COLORS] = -shortcut.weight[:COLORS]
    shortcut.bias[COLORS : 2 * COLORS] = 0


def _join_signs(conv_out: torch.nn.Conv2d) -> None:
    _pass_colors(conv_out)
    for channel in range(COLORS):
        conv_out.weight[channel, COLORS + channel] = -conv_out.weight[channel, channel]


def train_vae(
    vae: AutoencoderKL, scenes: SceneArrays, config: FitConfig, folder: Path, batch_size: int = 32, crop_px: int = 64
) -> None:
    """Train in place. Afterwards `vae.config.scaling_factor` scales the latents to a standard deviation of 1.

    Args:
        vae: The autoencoder to train.
        scenes: Images and maps to reconstruct.
        config: See `fit`.
        folder: Receives checkpoints and a log.
        batch_size: Crops per step.
        crop_px: Width and height of a crop.
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
    """The weighted sum of L1, squared error, L1 of differences, and KL divergence, each a mean in float32.

    Args:
        target: (B, 3, H, W) in [-1, 1].
        reconstruction: (B, 3, H, W).
        kl: Divergence summed over the latent of each row, (B,).
    """
    losses = reconstruction_loss(target, reconstruction)
    divergence = kl.float().mean() / (target.shape[2] * target.shape[3] / 8)
    return {**losses, "loss": losses["loss"] + KL_WEIGHT * divergence, "kl": divergence}


def reconstruction_loss(target: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
    """The weighted sum of L1, squared error, and L1 of differences of (B, 3, H, W), each a mean in float32."""
    difference = reconstruction.float() - target
    l1, square = difference.abs().mean(), difference.square().mean()
    slope = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return {"loss": l1 + SQUARE_WEIGHT * square + GRADIENT_WEIGHT * slope, "l1": l1, "square": square}


def sample_crops(scenes: SceneArrays, count: int, crop_px: int, generator: torch.Generator) -> Tensor:
    """Draw random crops (B, 3, crop, crop) in [-1, 1] of images and maps. Half of them are flipped."""
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
    """Pixels (..., 3), float32 in [-1, 1], of images (`image`), `depth`, `edge` or `pose` maps."""
    if kind in ("image", "pose"):
        pixels = scenes.images if kind == "image" else scenes.poses
        return pixels[window].astype(np.float32) / 127.5 - 1
    if kind == "depth":
        values = scenes.inverse_depths[window].astype(np.float32) / 32767.5 - 1
    else:
        values = scenes.edges[window].astype(np.float32) * 2 - 1
    return np.repeat(values[..., None], 3, -1)


def encode_maps(vae: AutoencoderKL, scenes: SceneArrays, kind: str, part_size: int = 64) -> Tensor:
    """Encode the images or maps of scenes to scaled latents (S, c, h, w), `part_size` scenes at a time."""
    windows = (np.s_[start : start + part_size] for start in range(0, len(scenes.captions), part_size))
    pixels = (torch.from_numpy(map_pixels(scenes, kind, window)).permute(0, 3, 1, 2) for window in windows)
    return torch.cat([encode_latents(vae, part) for part in pixels])


@torch.no_grad()
def latent_std(vae: AutoencoderKL, scenes: SceneArrays, count: int = 64) -> float:
    """Standard deviation of the unscaled latents of the first images and depth maps."""
    latents = []
    for kind in ("image", "depth"):
        pixels = torch.from_numpy(map_pixels(scenes, kind, np.s_[:count])).permute(0, 3, 1, 2)
        latents.append(vae.encode(pixels.to(vae.device)).latent_dist.mean)
    return float(torch.cat(latents).std())
