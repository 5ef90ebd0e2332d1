"""The autoencoder of a small Stable Diffusion: trained on scenes and their condition maps.

Shapes: ``B`` crops, ``h w`` latent size, ``C`` latent channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from unicon.training.fit import FitConfig, fit
from unicon.training.scene_cache import SceneArrays

KL_WEIGHT = 3e-4
"""Weight of the KL divergence a latent element beside the L1 error a pixel element."""
GRADIENT_WEIGHT = 0.5
"""Weight of the L1 error of horizontal and vertical differences: it keeps edges sharp."""
SHARES = {"image": 0.6, "depth": 0.3, "edge": 0.1}
"""What the crops show: pictures, inverse depth maps, edge maps."""


def new_vae(size_px: int = 128) -> AutoencoderKL:
    """An untrained autoencoder with factor 8 and 8 latent channels."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=size_px,
        mid_block_add_attention=False,
    )


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
        crops = sample_crops(scenes, batch_size, crop_px, generator).to(vae.device)
        posterior = vae.encode(crops).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(vae.device)
        return vae_loss(crops, vae.decode(posterior.mean + posterior.std * noise).sample, posterior.kl())

    fit(dict(vae.named_parameters()), loss, config, folder)
    vae.register_to_config(scaling_factor=1 / latent_std(vae, scenes))


def vae_loss(target: Tensor, reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
    """L1, L1 of differences, and KL.

    Args:
        target, reconstruction: (B, 3, H, W) in [-1, 1].
        kl: (B,) divergence summed over a row's latent.
    """
    difference = reconstruction - target
    l1 = difference.abs().mean()
    slope = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    divergence = kl.mean() / (target.shape[2] * target.shape[3] / 8)
    return {"loss": l1 + GRADIENT_WEIGHT * slope + KL_WEIGHT * divergence, "l1": l1, "kl": divergence}


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
    """Pixels (..., 3) float32 in [-1, 1] of pictures (``image``), ``depth`` or ``edge`` maps at an array index."""
    if kind == "image":
        return scenes.images[window].astype(np.float32) / 127.5 - 1
    if kind == "depth":
        values = scenes.inverse_depths[window].astype(np.float32) / 32767.5 - 1
    else:
        values = scenes.edges[window].astype(np.float32) * 2 - 1
    return np.repeat(values[..., None], 3, -1)


@torch.no_grad()
def latent_std(vae: AutoencoderKL, scenes: SceneArrays, count: int = 64) -> float:
    """Standard deviation of the unscaled latents of the first pictures and depth maps."""
    latents = []
    for kind in ("image", "depth"):
        pixels = torch.from_numpy(map_pixels(scenes, kind, np.s_[:count])).permute(0, 3, 1, 2)
        latents.append(vae.encode(pixels.to(vae.device)).latent_dist.mean)
    return float(torch.cat(latents).std())
