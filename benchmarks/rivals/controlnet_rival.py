# diffusers declares its outputs as tuples, and arguments too narrowly.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""ControlNet in the implementation of diffusers: images from depth maps, with the base frozen.

Source: arXiv 2302.05543.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from diffusers import ControlNetModel
from torch import Tensor

from benchmarks.rivals.base import Base, DenoisingLoss
from benchmarks.rivals.data import DEPTH, TrainingScenes
from benchmarks.rivals.latents import decoded_images, embedded, map_pixels, sampled
from benchmarks.rivals.rival import Rival
from unicon.sampling import step_table
from unicon.sampling.guidance import guide
from unicon.training.single_step import DrawnMaps


class ControlNetRival(Rival):
    """A ControlNet that starts from the encoder of the base."""

    def __init__(self, base: Base, scenes: TrainingScenes, batch_size: int) -> None:
        self.base = base
        self.control = ControlNetModel.from_unet(base.models.unet).requires_grad_(True)
        self.control.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trained = dict(self.control.named_parameters())
        self.loss = DenoisingLoss(base.models, scenes.maps, batch_size, self._predict_drawn)

    def _predict_drawn(self, noisy: Tensor, timesteps: Tensor, prompt_embeds: Tensor, drawn: DrawnMaps) -> Tensor:
        return self._predict(drawn.maps[DEPTH], noisy, timesteps, prompt_embeds)

    def _predict(self, maps: Tensor, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor) -> Tensor:
        """Predict for images, given the pixels (B, 3, H, W) in [-1, 1] of their depth maps."""
        maps = (maps * 0.5 + 0.5).contiguous(memory_format=torch.channels_last)
        down, middle = self.control(latents, timesteps, prompt_embeds, controlnet_cond=maps, return_dict=False)
        return self.base.models.unet(
            latents, timesteps, prompt_embeds, down_block_additional_residuals=down,
            mid_block_additional_residual=middle, return_dict=False,
        )[0]  # fmt: skip

    def synthesize(self, maps: list[np.ndarray], captions: list[str], steps: int, guidance: float) -> list[np.ndarray]:
        """See `Synthesizes`."""
        denoise = partial(self._denoise, map_pixels(maps), embedded(self.base, captions), guidance)
        (latents,) = sampled(self.base, denoise, step_table.completion(steps), [None], len(captions))
        return decoded_images(self.base, latents)

    @torch.no_grad()
    def _denoise(
        self, maps: Tensor, prompt_embeds: Tensor, guidance: float, latents: Tensor, timesteps: Tensor
    ) -> Tensor:
        controlled = self._predict(maps, latents, timesteps, prompt_embeds)
        if not guidance:
            return controlled
        alone = self.base.models.unet(latents, timesteps, prompt_embeds, return_dict=False)[0]
        return guide(controlled, without_joint=alone, condition_guidance_scale=guidance)
