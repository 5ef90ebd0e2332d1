# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and timesteps as `IntTensor`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""End-to-end training of estimates in a single step.

The rows are those of an estimate in one step: a clean image at timestep 0, and a condition that is pure noise at the
last timestep. The clean latents that the step predicts are decoded, and losses compare the maps with the truth. So the
model is trained for what it is judged by, with the exact inputs of `UniCon.estimate(..., num_inference_steps=1)`.
Noise is random, since an estimate starts from the noise of its seed; a map then hardly depends on it.

The joint attention changes the condition only ("one-way"). The rows of an image do not depend on its conditions, and
one image row serves the conditions of several adapters.

Shapes: B images per step, K adapters, c h w latents, H W pixels.

Source: "Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think", arXiv 2409.11355.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from unicon.adapters.unet import adapter_configs
from unicon.autoencoders import Autoencoder, decode_scaled
from unicon.conditions import CONDITIONS
from unicon.layout import Layout
from unicon.options import SamplingOptions
from unicon.pairs import Pair, Pairs
from unicon.sampling.loop import noise_levels
from unicon.training.auxiliary_heads import ConditionHeads
from unicon.training.map_losses import MAP_LOSSES
from unicon.training.models import TrainingModels, UNetOutput, normal_noise


class DrawnMaps(NamedTuple):
    """Images of one size with the true maps of several adapters."""

    images: Tensor
    """(B, c, h, w) scaled latents."""
    conditions: Mapping[str, Tensor]
    """Adapter -> scaled latents of the true maps, (B, c, h, w)."""
    maps: Mapping[str, Tensor]
    """Adapter -> the true maps as an autoencoder receives them, (B, 3, H, W) in [-1, 1]."""
    captions: list[str]


class MapSource(Protocol):
    """A source of images with true maps."""

    def draw_maps(self, generator: torch.Generator, batch_size: int) -> DrawnMaps:
        """Draw random images of one size. All random choices come from `generator`."""
        ...


@dataclass(frozen=True, kw_only=True)
class SingleStepSampling:
    """How the rows of a step are sampled.

    Raises:
        ValueError: A value is out of its range.
    """

    batch_size: int = 16
    """Images per step. The UNet processes 1 + K times as many rows."""
    caption_dropout: float = 0.9
    """Fraction of images without a caption. Estimates have none by default."""
    decoded_fractions: Mapping[str, float] = field(default_factory=dict)
    """Adapter -> fraction of its estimates that are decoded and compared as maps; 1 by default. The others are compared
    as latents, which costs less."""
    map_weights: Mapping[str, float] = field(default_factory=dict)
    """Adapter -> weight of the loss of its decoded maps; 1 by default."""
    latent_weights: Mapping[str, float] = field(default_factory=dict)
    """Adapter -> weight of the squared error of its other estimates; 1 by default."""
    heads_weight: float = 1.0
    """Weight of the loss of `ConditionHeads`, if there are any."""

    def __post_init__(self) -> None:
        fractions = (self.caption_dropout, *self.decoded_fractions.values())
        if self.batch_size < 1 or not all(0 <= value <= 1 for value in fractions):
            raise ValueError(f"batch_size is at least 1 and fractions lie in [0, 1]; got {self}. Correct the value.")


class SingleStepRows:
    """The rows of estimates in one step, of all adapters together."""

    def __init__(
        self, models: TrainingModels, vae: Autoencoder, adapters: Sequence[str], sampling: SingleStepSampling
    ) -> None:
        """Prepare the rows.

        Args:
            models: The models, with the adapters in the UNet.
            vae: The frozen autoencoder. Gradients pass through its decoder.
            adapters: Names of the adapters to train. Each has a kind in `MAP_LOSSES`.
            sampling: How the rows of a step are sampled.

        Raises:
            ValueError: There is no loss for the kind of an adapter.
        """
        self.models, self.vae, self.sampling = models, vae, sampling
        self.configs = {name: adapter_configs(models.unet)[name] for name in adapters}
        unknown = sorted({config.kind for config in self.configs.values()} - MAP_LOSSES.keys())
        if unknown:
            raise ValueError(f"Single-step estimates are trained for {sorted(MAP_LOSSES)}; got {unknown}.")
        self.levels = noise_levels(models.scheduler.config, SamplingOptions(num_inference_steps=1))
        self._layouts: dict[int, Layout] = {}

    def estimate(self, images: Tensor, noise: Tensor, prompt_embeds: Tensor) -> tuple[UNetOutput, dict[str, Tensor]]:
        """Take the only step of all estimates.

        Args:
            images: Scaled latents of clean images, (B, c, h, w).
            noise: Where the estimates start, (K * B, c, h, w).
            prompt_embeds: Those of the images, then of the estimates of every adapter, ((1 + K) * B, L, D).

        Returns:
            The output for all rows, and the estimates by adapter: scaled latents (B, c, h, w).
        """
        count = len(images)
        timesteps = torch.zeros(count + len(noise), device=images.device)
        timesteps[count:] = self.levels.timesteps[0]
        output = self.models.call(torch.cat([images, noise]), timesteps, prompt_embeds, self.layout(count))
        clean, _ = self.levels.split(output.prediction[count:].float(), noise, 0)
        return output, dict(zip(self.configs, clean.split(count), strict=True))

    def layout(self, count: int) -> Layout:
        """The layout of a step: `count` images, then the conditions of every adapter in the same order."""
        if count not in self._layouts:
            pairs = [
                Pair(row, role * count + row, name, weight_to_image=0.0)
                for role, name in enumerate(self.configs, start=1)
                for row in range(count)
            ]
            self._layouts[count] = Pairs(tuple(pairs), count * (1 + len(self.configs))).layout
        return self._layouts[count]

    def decode(self, latents: Tensor, name: str) -> Tensor:
        """Maps (B, 1 or 3, H, W) around [0, 1] of scaled latents, in float32."""
        return self.values(decode_scaled(self.vae, latents).float(), name)

    def values(self, pixels: Tensor, name: str) -> Tensor:
        """Pixels (B, 3, H, W) around [-1, 1] -> the values of maps (B, 1 or 3, H, W)."""
        values = pixels * 0.5 + 0.5
        return values if CONDITIONS[self.configs[name].kind].channels == 3 else values.mean(1, keepdim=True)

    def prompts(self, captions: Sequence[str], chances: Tensor) -> list[str]:
        """Prompts of B image rows, then of the condition rows of every adapter. `chances` are (B,) in [0, 1)."""
        kept = (chances >= self.sampling.caption_dropout).tolist()
        captions = [text if keep else "" for text, keep in zip(captions, kept, strict=True)]
        triggers = ["", *(config.trigger or "" for config in self.configs.values())]
        return [trigger + text for trigger in triggers for text in captions]


class SingleStepLoss(SingleStepRows):
    """The loss of estimates in one step, of all adapters together. It is called with a generator, see `fit`."""

    def __init__(
        self,
        models: TrainingModels,
        vae: Autoencoder,
        adapters: Sequence[str],
        source: MapSource,
        sampling: SingleStepSampling,
        heads: ConditionHeads | None = None,
    ) -> None:
        """Prepare the loss. `source` draws images with the maps of these adapters; see `SingleStepRows` for the others.

        Raises:
            ValueError: There is no loss for the kind of an adapter.
        """
        super().__init__(models, vae, adapters, sampling)
        self.source, self.heads = source, heads

    @property
    def pairs_a_step(self) -> float:
        """Mean number of pairs in a step."""
        return len(self.configs) * self.sampling.batch_size

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a step: `loss`, which is minimized, and those of every adapter by its name."""
        drawn = self.source.draw_maps(generator, self.sampling.batch_size)
        count, device = len(drawn.captions), self.models.unet.device
        images = drawn.images.to(device, torch.float32)
        noise = normal_noise((count * len(self.configs), *images.shape[1:]), generator, device)
        embeds = self.models.encode_prompts(self.prompts(drawn.captions, torch.rand(count, generator=generator)))
        output, estimates = self.estimate(images, noise, embeds)
        losses: dict[str, Tensor] = {}
        for name in self.configs:
            losses |= self._adapter_losses(name, estimates[name], drawn)
        losses["loss"] = torch.stack(list(losses.values())).sum()
        if self.heads is not None:
            targets = {kind: drawn.conditions[kind].to(device) for kind in self.heads.weights}
            losses["heads"] = self.heads.losses(output.prediction[:count], output.features[:count], targets)["heads"]
            losses["loss"] = losses["loss"] + self.sampling.heads_weight * losses["heads"]
        return losses

    def _adapter_losses(self, name: str, estimates: Tensor, drawn: DrawnMaps) -> dict[str, Tensor]:
        """The losses of the estimates of one adapter, scaled latents (B, c, h, w) in float32."""
        decoded = round(self.sampling.decoded_fractions.get(name, 1.0) * len(estimates))
        losses = {}
        if decoded:
            maps = self.decode(estimates[:decoded], name)
            truths = self.values(drawn.maps[name][:decoded].to(maps.device), name)
            weight = self.sampling.map_weights.get(name, 1.0)
            losses[f"{name}_maps"] = weight * MAP_LOSSES[self.configs[name].kind](maps, truths)
        if decoded < len(estimates):
            target = drawn.conditions[name][decoded:].to(estimates.device)
            weight = self.sampling.latent_weights.get(name, 1.0)
            losses[f"{name}_latents"] = weight * (estimates[decoded:] - target.float()).square().mean()
        return losses
