"""Before the adapters: a UNet that sees and draws, trained on single rows.

A pretrained Stable Diffusion UNet knows what pictures are made of; ours starts from nothing. Two tasks share its rows:

* Seeing: a clean picture, as the image branch gets it when a condition is estimated (timestep 0, empty prompt). Its
  output, which sampling never uses, predicts minus the latent of one condition, the target of a v-prediction from pure
  noise. Small convolutions on the last features predict the others, and are thrown away afterwards. Joint attention
  then finds in the image branch what a condition branch has to say.
* Drawing: ordinary denoising with captions.

Shapes: ``B`` rows a step, ``c h w`` latent, ``F`` channels of the last features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from unicon.training.loss import diffusion_loss
from unicon.training.pairs import TrainingModels, encode_prompts


@dataclass(frozen=True, kw_only=True)
class PretrainSampling:
    """What a step sees."""

    batch_size: int = 32
    """Rows."""
    seeing_fraction: float = 0.75
    """Of the rows; the others draw."""
    weights: Mapping[str, float]
    """Weight of each condition's squared error; the first is what the UNet's own output predicts."""
    text_dropout: float = 0.2
    """Fraction of the drawing rows with an empty prompt."""

    def __post_init__(self) -> None:
        if not (0 < self.seeing_fraction < 1 and 0 <= self.text_dropout <= 1 and self.weights):
            raise ValueError(f"fractions must lie between 0 and 1 and a condition have a weight, got {self}")


@dataclass(frozen=True)
class SceneLatents:
    """Encoded scenes of one size: latents (S, c, h, w) by what they show (``image`` and conditions), and captions."""

    latents: Mapping[str, Tensor]
    captions: tuple[str, ...]


def new_heads(unet: UNet2DConditionModel, sampling: PretrainSampling) -> nn.ModuleDict:
    """For every condition but the first, what reads it from the UNet's last features (B, F, h, w)."""
    features, out = unet.config.block_out_channels[0], unet.config.out_channels
    return nn.ModuleDict({kind: nn.Conv2d(features, out, 3, padding=1) for kind in list(sampling.weights)[1:]})


class PretrainLoss:
    """The loss of both tasks on random rows; call it with a generator (see ``fit``)."""

    def __init__(
        self, models: TrainingModels, heads: nn.ModuleDict, groups: list[SceneLatents], sampling: PretrainSampling
    ) -> None:
        self.models, self.heads, self.groups, self.sampling = models, heads, groups, sampling
        self._sizes = torch.tensor([float(len(group.captions)) for group in groups])

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """``loss``, what is minimised, and its parts: each condition's mean squared error, and drawing's."""
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
        targets = {kind: -group.latents[kind][rows[:seeing]].float().to(device) for kind in sampling.weights}
        losses = self._seeing_losses(prediction[:seeing], features[0][:seeing], targets)
        losses["drawing"] = diffusion_loss(
            prediction[seeing:],
            noise=noise[seeing:].to(device),
            timesteps=timesteps[seeing:].to(device),
            scheduler=self.models.scheduler,
            latents=images[seeing:].to(device),
            min_snr_gamma=None,
        )
        share = sampling.seeing_fraction
        seen = torch.stack([weight * losses[kind] for kind, weight in sampling.weights.items()]).sum()
        return {"loss": share * seen + (1 - share) * losses["drawing"], **losses}

    def _seeing_losses(self, prediction: Tensor, features: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first = next(iter(targets))
        found = {first: prediction, **{kind: head(features) for kind, head in self.heads.items()}}
        return {kind: (found[kind].float() - target).square().mean() for kind, target in targets.items()}

    def _prompts(self, group: SceneLatents, rows: Tensor, seeing: int, generator: torch.Generator) -> list[str]:
        dropped = torch.rand(len(rows), generator=generator) < self.sampling.text_dropout
        captions = [group.captions[row] for row in rows.tolist()]
        return [""] * seeing + ["" if drop else text for drop, text in zip(dropped.tolist(), captions, strict=True)]


@contextmanager
def last_features(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Collects what the UNet's last convolution is given, (B, F, h, w) each, while the context lasts."""
    seen: list[Tensor] = []
    hook = unet.conv_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
