"""Before the adapters: a UNet that sees and draws, trained on single rows.

Two tasks share the rows of a step:

* Seeing (``seeing.py``): clean pictures, with an empty prompt.
* Drawing: ordinary denoising with captions.

Shapes: ``B`` rows a step, ``c h w`` latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unicon.training.auxiliary_heads import Seeing, last_features
from unicon.training.loss import diffusion_loss
from unicon.training.pairs import TrainingModels, encode_prompts


@dataclass(frozen=True, kw_only=True)
class PretrainSampling:
    """What a step sees."""

    batch_size: int = 32
    """Rows."""
    seeing_fraction: float = 0.75
    """Of the rows; the others draw."""
    text_dropout: float = 0.2
    """Fraction of the drawing rows with an empty prompt."""

    def __post_init__(self) -> None:
        if not (0 < self.seeing_fraction < 1 and 0 <= self.text_dropout <= 1):
            raise ValueError(f"fractions must lie between 0 and 1, got {self}")


@dataclass(frozen=True)
class SceneLatents:
    """Encoded scenes of one size: latents (S, c, h, w) by what they show (``image`` and conditions), and captions."""

    latents: Mapping[str, Tensor]
    captions: tuple[str, ...]


class PretrainLoss:
    """The loss of both tasks on random rows; call it with a generator (see ``fit``)."""

    def __init__(
        self, models: TrainingModels, seeing: Seeing, groups: list[SceneLatents], sampling: PretrainSampling
    ) -> None:
        self.models, self.seeing, self.groups, self.sampling = models, seeing, groups, sampling
        self._sizes = torch.tensor([float(len(group.captions)) for group in groups])

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """``loss``, what is minimised, and its parts: see ``Seeing.losses``, and drawing's."""
        sampling, device = self.sampling, self.models.unet.device
        group = self.groups[int(torch.multinomial(self._sizes, 1, generator=generator))]
        rows = torch.randint(len(group.captions), (sampling.batch_size,), generator=generator)
        seeing = round(sampling.seeing_fraction * sampling.batch_size)
        images = group.latents["image"][rows].float()
        noise = torch.randn(images.shape, generator=generator)
        steps = self.models.scheduler.config.num_train_timesteps
        timesteps = torch.randint(1, steps, (sampling.batch_size,), generator=generator)
        timesteps[:seeing] = 0
        noisy = self.models.scheduler.add_noise(images, noise, timesteps)
        noisy[:seeing] = images[:seeing]
        embeds = encode_prompts(self.models, self._prompts(group, rows[seeing:], seeing, generator))
        with last_features(self.models.unet) as features:
            prediction = self.models.unet(noisy.to(device), timesteps.to(device), embeds).sample
        conditions = {kind: group.latents[kind][rows[:seeing]].to(device) for kind in self.seeing.weights}
        losses = self.seeing.losses(prediction[:seeing], features[0][:seeing], conditions)
        losses["drawing"] = diffusion_loss(
            prediction[seeing:],
            noise=noise[seeing:].to(device),
            timesteps=timesteps[seeing:].to(device),
            scheduler=self.models.scheduler,
            latents=images[seeing:].to(device),
            min_snr_gamma=None,
        )
        share = sampling.seeing_fraction
        return {"loss": share * losses["seeing"] + (1 - share) * losses["drawing"], **losses}

    def _prompts(self, group: SceneLatents, rows: Tensor, seeing: int, generator: torch.Generator) -> list[str]:
        dropped = torch.rand(len(rows), generator=generator) < self.sampling.text_dropout
        captions = [group.captions[row] for row in rows.tolist()]
        return [""] * seeing + ["" if drop else text for drop, text in zip(dropped.tolist(), captions, strict=True)]
