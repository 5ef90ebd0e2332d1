# diffusers declares its configurations as plain dictionaries, and timesteps as `IntTensor`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Pretraining of the UNet on single rows, before there are adapters.

Two tasks share the rows of a step:

* Predicting conditions of clean images with an empty prompt (`unicon.training.auxiliary_heads`).
* Ordinary denoising with captions.

Shapes: B rows per step, c h w latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unicon.training.auxiliary_heads import ConditionHeads, last_features
from unicon.training.loss import diffusion_loss
from unicon.training.models import TrainingModels


@dataclass(frozen=True, kw_only=True)
class PretrainSampling:
    """How the rows of a step are sampled.

    Raises:
        ValueError: A fraction is out of its range.
    """

    batch_size: int = 32
    """Rows per step."""
    heads_fraction: float = 0.75
    """Fraction of the rows whose conditions are predicted. The others are denoised."""
    text_dropout: float = 0.2
    """Fraction of the denoised rows with an empty prompt."""

    def __post_init__(self) -> None:
        if not (0 < self.heads_fraction < 1 and 0 <= self.text_dropout <= 1):
            raise ValueError(f"fractions must lie between 0 and 1, got {self}")


@dataclass(frozen=True)
class SceneLatents:
    """Encoded scenes of one size: latents (S, c, h, w) of images and conditions by name, and captions."""

    latents: Mapping[str, Tensor]
    captions: tuple[str, ...]


class PretrainLoss:
    """The loss of both tasks on random rows. It is called with a generator, see `fit`."""

    def __init__(
        self, models: TrainingModels, heads: ConditionHeads, groups: list[SceneLatents], sampling: PretrainSampling
    ) -> None:
        self.models, self.heads, self.groups, self.sampling = models, heads, groups, sampling
        self._sizes = torch.tensor([float(len(group.captions)) for group in groups])

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of one step: `loss`, which is minimized, those of `ConditionHeads.losses`, and `denoising`."""
        sampling, device = self.sampling, self.models.unet.device
        group = self.groups[int(torch.multinomial(self._sizes, 1, generator=generator))]
        rows = torch.randint(len(group.captions), (sampling.batch_size,), generator=generator)
        heads = round(sampling.heads_fraction * sampling.batch_size)
        images = group.latents["image"][rows].float()
        noise = torch.randn(images.shape, generator=generator)
        steps = self.models.scheduler.config.num_train_timesteps
        timesteps = torch.randint(1, steps, (sampling.batch_size,), generator=generator)
        timesteps[:heads] = 0
        noisy = self.models.scheduler.add_noise(images, noise, timesteps)
        noisy[:heads] = images[:heads]
        embeds = self.models.encode_prompts(self._prompts(group, rows[heads:], heads, generator))
        with last_features(self.models.unet) as features:
            prediction = self.models.unet(noisy.to(device), timesteps.to(device), embeds).sample
        conditions = {kind: group.latents[kind][rows[:heads]].to(device) for kind in self.heads.weights}
        losses = self.heads.losses(prediction[:heads], features[0][:heads], conditions)
        losses["denoising"] = diffusion_loss(
            prediction[heads:],
            noise=noise[heads:].to(device),
            timesteps=timesteps[heads:].to(device),
            scheduler=self.models.scheduler,
            latents=images[heads:].to(device),
            min_snr_gamma=None,
        )
        share = sampling.heads_fraction
        return {"loss": share * losses["heads"] + (1 - share) * losses["denoising"], **losses}

    def _prompts(self, group: SceneLatents, rows: Tensor, heads: int, generator: torch.Generator) -> list[str]:
        dropped = torch.rand(len(rows), generator=generator) < self.sampling.text_dropout
        captions = [group.captions[row] for row in rows.tolist()]
        return [""] * heads + ["" if drop else text for drop, text in zip(dropped.tolist(), captions, strict=True)]
