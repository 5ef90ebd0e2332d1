# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and arguments too narrowly.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false
"""Plain regression: a UNet of the same shape that maps the latents of an image to those of its depth map in one pass.

Source of the variant that starts from the base: arXiv 2409.11355, which fine-tunes a diffusion model end to end.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from benchmarks.rivals.base import Base
from benchmarks.rivals.data import DEPTH, TrainingScenes
from benchmarks.rivals.latents import decoded_maps, embedded, encoded, image_pixels
from benchmarks.rivals.recipe import DECODED_SHARE, LATENT_WEIGHT, MAP_WEIGHT
from benchmarks.rivals.rival import Rival
from unicon.autoencoders import decode_scaled
from unicon.training.map_losses import affine_loss

INITIAL_SEED = 0


class RegressionRival(Rival):
    """A UNet whose output for a clean image, an empty prompt and timestep 0 is its depth."""

    def __init__(self, base: Base, scenes: TrainingScenes, batch_size: int, *, from_base: bool) -> None:
        self.base, self.scenes, self.batch_size = base, scenes, batch_size
        self.unet = copy.deepcopy(base.models.unet) if from_base else _untrained(base.models.unet)
        self.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.unet.requires_grad_(True)
        self.trained = dict(self.unet.named_parameters())
        self.loss = RegressionLoss(self)

    def predict(self, images: Tensor) -> Tensor:
        """Latents of images -> latents of depth maps, both (B, c, h, w).

        The sign is that of velocities at pure noise, as in the training of `mini`.
        """
        prompt_embeds = embedded(self.base, [""] * len(images))
        return -self.unet(images, torch.zeros(len(images)), prompt_embeds, return_dict=False)[0]

    def estimate(self, images: list[np.ndarray], steps: int) -> list[np.ndarray]:
        """See `Estimates`. There is one pass, whatever the number of steps."""
        latents = encoded(self.base, image_pixels(images))
        with torch.no_grad():
            return decoded_maps(self.base, self.predict(latents))


class RegressionLoss:
    """The losses of UniCon's estimates in one step, for plain regression."""

    def __init__(self, rival: RegressionRival) -> None:
        self.rival = rival

    @property
    def pairs_a_step(self) -> float:
        """Number of images in a step."""
        return self.rival.batch_size

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a step."""
        rival = self.rival
        drawn = rival.scenes.maps.draw_maps(generator, rival.batch_size)
        estimates = rival.predict(drawn.images.float())
        decoded = round(DECODED_SHARE * len(estimates))
        parts: dict[str, Tensor] = {}
        if decoded:
            maps, truths = decode_scaled(rival.base.vae, estimates[:decoded]), drawn.maps[DEPTH][:decoded]
            values = [(each * 0.5 + 0.5).mean(1, keepdim=True) for each in (maps, truths)]
            parts["maps"] = MAP_WEIGHT * affine_loss(values[0], values[1])
        if decoded < len(estimates):
            difference = estimates[decoded:] - drawn.conditions[DEPTH][decoded:]
            parts["latents"] = LATENT_WEIGHT * difference.square().mean()
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def _untrained(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A UNet of the same shape with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL_SEED)
        return UNet2DConditionModel.from_config(unet.config)
