# transformers declares the arguments of `to` incorrectly.
# pyright: reportArgumentType=false
"""The appearance adapter of `mini`: two views of one scene, joined by attention alone.

An appearance condition is another image of the same things, like two frames of a film. Both roles are images, which the
frozen UNet already models, so the adapter has no LoRA for its condition rows, and the separate output projection.

Source: arXiv 2410.11439, section 3.2 and appendix A.
Tested in tests/unicon/training/mini/test_train.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from unicon.adapters.checkpoint import save_adapter
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import adapter_config, named_adapter_parameters
from unicon.model import UniCon
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.training.fit import FitConfig, fit
from unicon.training.mini.models import install_adapter_of, read_models
from unicon.training.mini.scene_cache import load_cache, render_cache
from unicon.training.mini.vae import encode_maps
from unicon.training.pairs import LatentGroups, PairLatents, PairLoss, PairSampling

NAME = "appearance"
RANK = 16
"""Rank of the LoRAs."""
SAMPLING = PairSampling(
    batch_size=12,
    text_dropout=0.05,
    caption_dropout=0.5,
    clean_image_fraction=0.1,
    clean_condition_fraction=0.7,
    noisy_condition_fraction=0.5,
    min_snr_gamma=None,
)
"""Mostly a clean view beside a noisy one, since appearance is used for synthesis."""


def train_appearance(vae: AutoencoderKL, output: Path, config: FitConfig, work: Path, *, seed: int, count: int) -> None:
    """Train the adapter for the model in `output`, which does not change, and write the adapter there.

    Args:
        vae: The autoencoder of the model, on the device of the training.
        output: Folder of the model. If it has an appearance adapter, the training continues from it.
        config: How to train.
        work: Receives scenes, latents, checkpoints, logs and validation images.
        seed: Seed of the scenes.
        count: Number of scenes, each in two views.
    """
    models = read_models(output)
    unet = models.unet.to(vae.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    models.text_encoder.to(vae.device).requires_grad_(False)
    unet.requires_grad_(False)
    fresh = AdapterConfig(name=NAME, rank=RANK, projection="separate", condition_adapter=False)
    install_adapter_of(unet, fresh, output)
    source = LatentGroups(view_pairs(vae, work, seed, count), unet.device)
    loss = PairLoss(models, NAME, adapter_config(unet, NAME).trigger or "", source, SAMPLING)
    parameters = named_adapter_parameters(unet, NAME)

    def on_checkpoint(step: int) -> None:
        tensors = {key: value.half() for key, value in parameters.items()}
        save_adapter(unet, NAME, output / "adapters" / f"{NAME}.safetensors", tensors=tensors)
        draw_appearance(UniCon.from_pretrained(output, device=unet.device)).save(work / NAME / f"{step:06d}.png")

    fit(parameters, loss, replace(config, seed=seed), work / NAME, on_checkpoint)


def view_pairs(vae: AutoencoderKL, work: Path, seed: int, count: int) -> list[PairLatents]:
    """Encoded pairs of two views of each scene, in both orders, cached in `work`."""
    path = work / f"views-{seed}.pt"
    views = []
    for view in (0, 1):
        root = work / f"views-{seed}-{view}"
        render_cache(root, seed, count, view=view)
        views.append(load_cache(root, count))
    if not path.exists():
        torch.save([encode_maps(vae, scenes, "image") for scenes in views], path)
    one, other = torch.load(path, weights_only=True)
    captions = [scenes.captions for scenes in views]
    return [PairLatents(one, other, captions[0]), PairLatents(other, one, captions[1])]


def draw_appearance(model: UniCon, seed: int = 2, count: int = 8) -> Image.Image:
    """Draw a sheet of given views, the images that their captions describe, and the images that the model generates."""
    given = [render(sample_scene(seed, index, view=1)) for index in range(count)]
    asked = [render(sample_scene(seed, index)) for index in range(count)]
    maps = [view.image.astype(np.float32) / 255 for view in given]
    made = model.synthesize({NAME: maps}, [view.caption for view in asked], guidance_scale=1.0)
    rows = [[v.image for v in given], [v.image for v in asked], [np.asarray(result.image) for result in made]]
    return Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))
