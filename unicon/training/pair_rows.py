# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and timesteps as `IntTensor`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The rows of a training step on pairs of one adapter: their random numbers, the call of the UNet, and their errors.

Random numbers are drawn for all B pairs of a step, whoever processes them. A worker then takes those of its own pairs,
so that a step does not depend on how its pairs are shared out.

Shapes: B pairs per step, c h w latents.

Source: arXiv 2410.11439, section 3.3 (independent timesteps) and appendix A (recipe).
Tested in tests/unicon/training/test_pairs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unicon.training.loss import row_losses
from unicon.training.models import TrainingModels, UNetOutput, normal_noise
from unicon.training.pair_layout import PairLayouts

NOISY_SHARE = 0.95
"""Timesteps of nearly pure noise are drawn from this fraction of the schedule upward."""


@dataclass(frozen=True, kw_only=True)
class PairSampling:
    """How the pairs of a training step are sampled. The defaults are the published recipe.

    Raises:
        ValueError: A fraction is out of [0, 1].
    """

    batch_size: int = 16
    """Pairs per step. The UNet processes twice as many rows."""
    text_dropout: float = 0.1
    """p: with one random u per pair, the image's prompt is dropped if u < 2p, the condition's if p < u < 3p."""
    caption_dropout: float = 0.0
    """Fraction of pairs without a caption. Their condition keeps its trigger text, as in estimates of photographs."""
    clean_image_fraction: float = 0.0
    """Fraction of pairs whose image is clean, at timestep 0, as when a condition is estimated."""
    clean_condition_fraction: float = 0.0
    """Fraction of pairs whose condition is clean, at timestep 0, as when an image is synthesized."""
    noisy_condition_fraction: float = 0.0
    """Fraction of the pairs with a clean image whose condition is nearly pure noise. The first steps decide an
    estimate, and with one step there are no others."""
    unjoined_fraction: float = 0.0
    """Fraction of pairs without joint attention, so that a UNet trained with them also works without conditions."""
    min_snr_gamma: float | None = 5.0
    """Loss weighting, arXiv 2303.09556; None for no weighting."""
    alignment_weight: float = 0.0
    """Weight of `joint_alignment`, for UNets that are not pretrained."""
    aligned_heads: int = 2
    """Number of heads of every joint attention that `alignment_weight` acts on."""
    heads_weight: float = 1.0
    """Weight of the loss of `ConditionHeads`, if a `PairLoss` has them."""

    def __post_init__(self) -> None:
        fractions = (
            self.caption_dropout,
            self.clean_image_fraction + self.clean_condition_fraction,
            self.noisy_condition_fraction,
            self.unjoined_fraction,
            3 * self.text_dropout,
        )
        if not all(0 <= value <= 1 for value in fractions):
            raise ValueError(f"fractions must lie in [0, 1] (3 * text_dropout too), got {self}")


class PairDraws(NamedTuple):
    """The random numbers of B pairs. Tensors of two rows are for images, then for conditions."""

    noise: Tensor
    """(2, B, c, h, w)."""
    timesteps: Tensor
    """(2, B)."""
    learned: Tensor
    """bool (2, B), the rows to learn from."""
    joint_weights: Tensor
    """(B,)."""
    text: Tensor
    """(2, B) in [0, 1): whether a pair has a caption, and which prompts are dropped."""

    def select(self, places: Sequence[int]) -> PairDraws:
        """Those of some pairs, in ascending order."""
        index = as_index(places)
        return PairDraws(
            self.noise[:, index], self.timesteps[:, index], self.learned[:, index], self.joint_weights[index],
            self.text[:, index],
        )  # fmt: skip


def as_index(places: Sequence[int]) -> slice | list[int]:
    """An index of ascending places: a slice where they are consecutive, which needs no copy to the device."""
    is_whole = places[-1] - places[0] == len(places) - 1
    return slice(places[0], places[-1] + 1) if is_whole else list(places)


class PairErrors(NamedTuple):
    """What a step finds about B pairs."""

    errors: Tensor
    """(2 B,) float32: the loss of every image, then of every condition."""
    learned: Tensor
    """bool (2 B,), the rows to learn from."""
    output: UNetOutput


class PairRows:
    """The rows of steps on pairs of one adapter."""

    def __init__(self, models: TrainingModels, adapter: str, trigger: str, sampling: PairSampling) -> None:
        self.models, self.adapter, self.trigger, self.sampling = models, adapter, trigger, sampling
        self.layouts = PairLayouts(adapter, models.unet.device)

    def draw(self, latent_shape: Sequence[int], generator: torch.Generator) -> PairDraws:
        """Draw the random numbers of a step, for `sampling.batch_size` pairs of latents (c, h, w)."""
        count = self.sampling.batch_size
        noise = normal_noise((2 * count, *latent_shape), generator, self.models.unet.device)
        timesteps, learned, joint_weights = self.draw_timesteps(generator)
        text = torch.rand(2, count, generator=generator)
        return PairDraws(
            noise.unflatten(0, (2, count)), timesteps.view(2, -1), learned.view(2, -1), joint_weights, text
        )

    def predict(
        self, images: Tensor, conditions: Tensor, captions: Sequence[str], draws: PairDraws, *, attended: bool = False
    ) -> PairErrors:
        """Call the UNet on pairs, and compare its output with the target.

        Args:
            images: Scaled latents (B, c, h, w) in float32 on the UNet's device.
            conditions: The same of the conditions.
            captions: Captions of the B pairs.
            draws: Their random numbers.
            attended: Whether the output has the inputs of the attention modules.
        """
        scheduler, device = self.models.scheduler, self.models.unet.device
        latents, noise = torch.cat([images, conditions]), draws.noise.flatten(0, 1)
        embeds = self.models.encode_prompts(self.prompts(captions, draws.text))
        drawn = (draws.timesteps.flatten(), draws.learned.flatten(), draws.joint_weights)
        timesteps, learned, weights = (each.to(device, non_blocking=True) for each in drawn)
        noisy = torch.where(learned[:, None, None, None], scheduler.add_noise(latents, noise, timesteps), latents)
        output = self.models.call(noisy, timesteps, embeds, self.layouts.layout(weights), attended=attended)
        errors = row_losses(
            output.prediction, noise=noise, timesteps=timesteps, scheduler=scheduler, latents=latents,
            min_snr_gamma=self.sampling.min_snr_gamma,
        )  # fmt: skip
        return PairErrors(errors, learned, output)

    def draw_timesteps(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the timesteps (2B,), the rows to learn from (2B,) and the joint weights (B,) of a step, on the CPU.

        Timesteps are independent except for the clean fractions. There is nothing to learn from a row that was drawn
        clean, since its noise cannot be told from its content.
        """
        sampling, count = self.sampling, self.sampling.batch_size
        steps = self.models.scheduler.config.num_train_timesteps
        timesteps = torch.randint(steps, (2 * count,), generator=generator)
        kind, joined = torch.rand(2, count, generator=generator)
        unjoined = joined < sampling.unjoined_fraction
        clean_image = (kind < sampling.clean_image_fraction) & ~unjoined
        clean_condition = (kind >= 1 - sampling.clean_condition_fraction) & ~unjoined
        is_clean = torch.cat([clean_image, clean_condition])
        noisy = torch.randint(int(NOISY_SHARE * steps), steps, (count,), generator=generator)
        is_noisy = clean_image & (torch.rand(count, generator=generator) < sampling.noisy_condition_fraction)
        timesteps[count:] = torch.where(is_noisy, noisy, timesteps[count:])
        timesteps[is_clean] = 0
        return timesteps, ~is_clean, (~unjoined).float()

    def prompts(self, captions: Sequence[str], chances: Tensor) -> list[str]:
        """Prompts of B image rows, then of their condition rows. `chances` are `PairDraws.text`."""
        unknown, dropped = chances.tolist()
        captions = [
            "" if u < self.sampling.caption_dropout else text for u, text in zip(unknown, captions, strict=True)
        ]
        p = self.sampling.text_dropout
        images = ["" if u < 2 * p else text for u, text in zip(dropped, captions, strict=True)]
        conditions = ["" if p < u < 3 * p else self.trigger + text for u, text in zip(dropped, captions, strict=True)]
        return images + conditions
