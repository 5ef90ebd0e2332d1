# diffusers declares its configurations as plain dictionaries.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Two joined UNets after the idea of JointNet, trained with the pairs and timesteps of UniCon.

Independent timesteps give one set of weights for all tasks. The paper trains with equal ones, and fine-tunes a variant
with masks for the two directions.

Source: arXiv 2310.06347.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.rivals.base import Base
from benchmarks.rivals.data import DEPTH, TrainingScenes
from benchmarks.rivals.joined import JoinedUNets
from benchmarks.rivals.latents import decoded_images, decoded_maps, embedded, encoded, image_pixels, map_pixels, sampled
from benchmarks.rivals.recipe import pair_sampling
from benchmarks.rivals.rival import Rival
from unicon.condition_kinds import CONDITION_KINDS
from unicon.layout import Layout
from unicon.sampling import step_table
from unicon.sampling.guidance import guide
from unicon.sampling.step_table import StepTable
from unicon.training.models import TrainingModels, UNetCall, UNetOutput
from unicon.training.pairs import PairLoss

TRIGGER = CONDITION_KINDS[DEPTH].trigger
"""Text before the prompt of a depth map, as for UniCon."""


class JoinedCall(UNetCall):
    """Calls joined UNets for images followed by their depth maps."""

    def __init__(self, joined: JoinedUNets) -> None:
        super().__init__(joined.image)
        self.joined = joined

    def __call__(
        self, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor, layout: Layout, *, attended: bool = False
    ) -> UNetOutput:
        """See `UNetCall`. There is only one layout, and there are no features."""
        return UNetOutput(self.joined(latents, timesteps, prompt_embeds), latents.new_empty(0), [])


@dataclass(frozen=True)
class JoinedModels(TrainingModels):
    """The models of the base, with joined UNets in the place of its UNet."""

    joined: JoinedUNets = field(kw_only=True)

    @cached_property
    def call(self) -> JoinedCall:
        """The calls of the joined UNets."""
        return JoinedCall(self.joined)


class JointNetRival(Rival):
    """A frozen UNet for images, joined with a trained copy for depth."""

    def __init__(self, base: Base, scenes: TrainingScenes, batch_size: int) -> None:
        self.base, self.joined = base, JoinedUNets(base.models.unet)
        self.trained = {name: value for name, value in self.joined.named_parameters() if value.requires_grad}
        parts = {each.name: getattr(base.models, each.name) for each in fields(TrainingModels)}
        models = JoinedModels(**parts, joined=self.joined)
        self.loss = PairLoss(models, DEPTH, TRIGGER, scenes.pairs, pair_sampling(batch_size))

    def estimate(self, images: list[np.ndarray], steps: int) -> list[np.ndarray]:
        """See `Estimates`."""
        given = [encoded(self.base, image_pixels(images)), None]
        table = step_table.estimation(steps, clean_image=True)
        return decoded_maps(self.base, self._sampled(table, given, [""] * len(images), 0.0)[1])

    def synthesize(self, maps: list[np.ndarray], captions: list[str], steps: int, guidance: float) -> list[np.ndarray]:
        """See `Synthesizes`."""
        given = [None, encoded(self.base, map_pixels(maps))]
        table = step_table.synthesis(steps, clean_conditions=True)
        return decoded_images(self.base, self._sampled(table, given, captions, guidance)[0])

    def generate(self, captions: list[str], steps: int, guidance: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """See `Generates`."""
        images, maps = self._sampled(step_table.joint(steps), [None, None], captions, guidance)
        return decoded_images(self.base, images), decoded_maps(self.base, maps)

    def _sampled(
        self, table: StepTable, given: Sequence[Tensor | None], captions: Sequence[str], guidance: float
    ) -> Sequence[Tensor]:
        prompts = [*captions, *(TRIGGER + text for text in captions)]
        denoise = partial(self._predict, embedded(self.base, prompts), guidance)
        return sampled(self.base, denoise, table, given, len(captions))

    @torch.no_grad()
    def _predict(self, prompt_embeds: Tensor, guidance: float, latents: Tensor, timesteps: Tensor) -> Tensor:
        joined = self.joined(latents, timesteps, prompt_embeds)
        if not guidance:
            return joined
        alone = self.joined(latents, timesteps, prompt_embeds, exchange=False)
        return guide(joined, without_joint=alone, condition_guidance_scale=guidance)
