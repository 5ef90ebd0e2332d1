# diffusers declares `from_pretrained` as returning a tuple too, and its configurations as plain dictionaries.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The base from which every rival starts: the UNet of `mini`, trained on with images and captions alone.

`mini` is no neutral base. In its training, the output of its UNet for a clean image at timestep 0 was the depth of the
image (`unicon.training.auxiliary_heads`), so that a depth network that starts from it has nothing to learn. Some steps
of plain denoising, at all timesteps and without joint attention, take this output away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.rivals.data import TrainingScenes
from benchmarks.rivals.recipe import CAPTION_DROPOUT, FIT
from unicon.files.folder import find_folder
from unicon.training.fit import fit
from unicon.training.loss import diffusion_loss
from unicon.training.mini.models import read_models, save
from unicon.training.models import TrainingModels, normal_noise
from unicon.training.single_step import DrawnMaps, MapSource

MODEL = "mini"
BASE_ROWS = 24
"""Images in a step of the base."""
Predict = Callable[[Tensor, Tensor, Tensor, DrawnMaps], Tensor]
"""(noisy latents (B, c, h, w), timesteps (B,), prompt embeddings, what was drawn) -> prediction (B, c, h, w)."""


class DenoisingLoss:
    """The loss of denoising images with captions. It is called with a generator, see `unicon.training.fit.fit`."""

    def __init__(self, models: TrainingModels, source: MapSource, batch_size: int, predict: Predict) -> None:
        self.models, self.source, self.batch_size, self.predict = models, source, batch_size, predict

    @property
    def pairs_a_step(self) -> float:
        """Number of images in a step."""
        return self.batch_size

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of a step."""
        drawn = self.source.draw_maps(generator, self.batch_size)
        latents, scheduler = drawn.images.float(), self.models.scheduler
        noise = normal_noise(latents.shape, generator, latents.device)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), generator=generator)
        kept = torch.rand(len(latents), generator=generator) >= CAPTION_DROPOUT
        captions = [text if keep else "" for text, keep in zip(drawn.captions, kept.tolist(), strict=True)]
        noisy = scheduler.add_noise(latents, noise, timesteps)
        prediction = self.predict(noisy, timesteps, self.models.encode_prompts(captions), drawn)
        loss = diffusion_loss(
            prediction, noise=noise, timesteps=timesteps, scheduler=scheduler, latents=latents, min_snr_gamma=None
        )
        return {"loss": loss}


@dataclass(frozen=True)
class Base:
    """The frozen parts of the base."""

    folder: Path
    """A model folder with these weights."""
    models: TrainingModels
    vae: AutoencoderKL


def read_vae(folder: Path) -> AutoencoderKL:
    """The frozen autoencoder of a model folder, in float32."""
    return AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)


def read_base(folder: Path) -> Base:
    """Read a base that `train_base` wrote, and freeze it. Every call gives modules of its own."""
    models = read_models(folder)
    models.unet.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    models.text_encoder.eval().requires_grad_(False)
    return Base(folder, models, read_vae(folder))


def train_base(work: Path, scenes: TrainingScenes, steps: int) -> Path:
    """Train the UNet of `mini` on for some steps of denoising, and return the folder of the result.

    A base that is already in the work folder stays as it is.
    """
    output = work / "base"
    if (output / "model_index.json").exists():
        return output
    source = find_folder(MODEL)
    models, vae = read_models(source), read_vae(source)
    models.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    models.text_encoder.requires_grad_(False)

    def predict(noisy: Tensor, timesteps: Tensor, embeds: Tensor, drawn: DrawnMaps) -> Tensor:
        return models.unet(noisy, timesteps, embeds, return_dict=False)[0]

    if steps:
        loss = DenoisingLoss(models, scenes.maps, BASE_ROWS, predict)
        parameters = dict(models.unet.named_parameters())
        fit(parameters, loss, replace(FIT, steps=steps), work / "base-training", pairs_a_step=loss.pairs_a_step)
    save(models, vae, [], output)
    return output
