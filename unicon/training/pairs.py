# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and timesteps as `IntTensor`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Training on pairs of images and conditions: adapters alone, or together with the UNet and text encoder.

Shapes: S samples, B pairs per step, c h w latents, L text tokens of width D.

Source: arXiv 2410.11439, section 3.3 (independent timesteps) and appendix A (recipe).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from unicon.autoencoders import Autoencoder, encode_scaled
from unicon.pairs import Pair, Pairs
from unicon.training.auxiliary_heads import ConditionHeads, last_features
from unicon.training.fit import Loss
from unicon.training.joint_alignment import attention_inputs, joint_alignment
from unicon.training.loss import diffusion_loss

NOISY_SHARE = 0.95
"""Timesteps of nearly pure noise are drawn from this fraction of the schedule upward."""


@dataclass(frozen=True)
class PairLatents:
    """Encoded images and conditions of one size."""

    images: Tensor
    """(S, c, h, w) scaled latents."""
    conditions: Tensor
    """(S, c, h, w) scaled latents."""
    captions: tuple[str, ...]
    head_targets: Mapping[str, Tensor] = field(default_factory=dict)
    """Condition -> scaled latents (S, c, h, w): the targets of `ConditionHeads`."""


class DrawnPairs(NamedTuple):
    """Images and conditions of one size as scaled latents (B, c, h, w), with B captions; see `PairLatents`."""

    images: Tensor
    conditions: Tensor
    captions: list[str]
    head_targets: Mapping[str, Tensor] = MappingProxyType({})


class PairSource(Protocol):
    """A source of training pairs."""

    def draw(self, generator: torch.Generator, batch_size: int) -> DrawnPairs:
        """Draw random pairs of one size.

        All random choices come from `generator`, so that the same generator draws the same pairs.
        """
        ...


class LatentGroups:
    """Pairs from latents in memory. A group is drawn by its size, then samples of it with replacement."""

    def __init__(self, groups: Sequence[PairLatents]) -> None:
        self.groups = groups
        self._sizes = torch.tensor([float(len(group.captions)) for group in groups])

    def draw(self, generator: torch.Generator, batch_size: int) -> DrawnPairs:
        """See `PairSource`."""
        group = self.groups[int(torch.multinomial(self._sizes, 1, generator=generator))]
        chosen = torch.randint(len(group.captions), (batch_size,), generator=generator)
        return DrawnPairs(
            group.images[chosen],
            group.conditions[chosen],
            [group.captions[index] for index in chosen.tolist()],
            {kind: latents[chosen] for kind, latents in group.head_targets.items()},
        )


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


class MixedLoss:
    """A loss that draws one of several losses per step by their shares. It is called with a generator, see `fit`."""

    def __init__(self, losses: Sequence[Loss], shares: Sequence[float]) -> None:
        if len(losses) != len(shares) or min(shares, default=0.0) <= 0:
            raise ValueError(f"every loss needs a positive share, got {len(losses)} losses and shares {list(shares)}")
        self.losses, self.shares = losses, torch.tensor(shares)

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The values of the drawn loss."""
        return self.losses[int(torch.multinomial(self.shares, 1, generator=generator))](generator)


@dataclass(frozen=True)
class TrainingModels:
    """The parts of a Stable Diffusion model that take part in training."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the UNet and the text encoder by name."""
        return dict(nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder}).named_parameters())


@torch.no_grad()
def encode_latents(vae: Autoencoder, pixels: Tensor, batch_size: int | None = None) -> Tensor:
    """Encode (S, 3, H, W) in [-1, 1] to (S, c, h, w) float16 scaled latents (means of the posterior).

    The default of `batch_size` is 32, and 4 on a CPU, where larger batches exceed the cache (83 images of 128 x 128 a
    second with 4, 44 with 64).
    """
    batch_size = batch_size or (4 if vae.device.type == "cpu" else 32)
    parts = [encode_scaled(vae, part.to(vae.device)) for part in pixels.split(batch_size)]
    return torch.cat(parts).half().cpu()


class PairLoss:
    """The loss of one adapter on random pairs. It is called with a generator, see `fit`."""

    def __init__(
        self,
        models: TrainingModels,
        adapter: str,
        trigger: str,
        source: PairSource,
        sampling: PairSampling,
        heads: ConditionHeads | None = None,
    ) -> None:
        self.models, self.adapter, self.trigger, self.source, self.sampling = models, adapter, trigger, source, sampling
        self.heads = heads

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a step: `loss`, which is minimized, its means over images and conditions, auxiliary losses."""
        sampling, device = self.sampling, self.models.unet.device
        images, conditions, captions, head_targets = self.source.draw(generator, sampling.batch_size)
        latents = torch.cat([images.float(), conditions.float()])  # autocast to bfloat16 refuses to join float16
        noise = torch.randn(latents.shape, generator=generator)
        timesteps, learned, pairs = self._timesteps_and_pairs(generator)
        embeds = encode_prompts(self.models, self._prompts(captions, generator))
        latents, noise, timesteps, learned = (x.to(device) for x in (latents, noise, timesteps, learned))
        noisy = torch.where(
            learned[:, None, None, None], self.models.scheduler.add_noise(latents, noise, timesteps), latents
        )
        unet = self.models.unet
        collected_attention = attention_inputs(unet) if sampling.alignment_weight else nullcontext([])
        with collected_attention as attended, last_features(unet) as features:
            prediction = unet(noisy, timesteps, embeds, cross_attention_kwargs={"pairs": pairs}).sample
        is_image = torch.arange(2 * sampling.batch_size, device=device) < sampling.batch_size
        parts = {"loss": learned, "image": learned & is_image, "condition": learned & ~is_image}
        losses = {n: self._masked_loss(prediction, latents, noise, timesteps, rows) for n, rows in parts.items()}
        if sampling.alignment_weight:
            losses["alignment"] = joint_alignment(attended, self.adapter, sampling.aligned_heads)
            losses["loss"] = losses["loss"] + sampling.alignment_weight * losses["alignment"]
        clean = torch.nonzero((is_image & ~learned)[: sampling.batch_size])[:, 0]
        if self.heads is not None and len(clean):
            targets = {kind: maps.to(device)[clean] for kind, maps in head_targets.items()}
            found = self.heads.losses(prediction[clean], features[0][clean], targets)
            losses |= {name if name == "heads" else f"head_{name}": value for name, value in found.items()}
            losses["loss"] = losses["loss"] + sampling.heads_weight * losses["heads"]
        return losses

    def _masked_loss(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, rows: Tensor
    ) -> Tensor:
        """The mean loss of some rows; zero if there are none."""
        if not rows.any():
            return prediction.sum() * 0
        return diffusion_loss(
            prediction[rows],
            noise=noise[rows],
            timesteps=timesteps[rows],
            scheduler=self.models.scheduler,
            latents=latents[rows],
            min_snr_gamma=self.sampling.min_snr_gamma,
        )

    def _timesteps_and_pairs(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Pairs]:
        """Draw the timesteps (2B,), the rows to learn from (2B,) and the pairs of a step.

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
        weights = (~unjoined).float().tolist()
        pairs = (Pair(row, count + row, self.adapter, weight, weight) for row, weight in enumerate(weights))
        return timesteps, ~is_clean, Pairs(tuple(pairs), 2 * count)

    def _prompts(self, captions: list[str], generator: torch.Generator) -> list[str]:
        """Prompts of the image rows, then of the condition rows."""
        unknown, dropped = torch.rand(2, len(captions), generator=generator)
        captions = [
            "" if u < self.sampling.caption_dropout else text for u, text in zip(unknown, captions, strict=True)
        ]
        p = self.sampling.text_dropout
        images = ["" if u < 2 * p else text for u, text in zip(dropped, captions, strict=True)]
        conditions = ["" if p < u < 3 * p else self.trigger + text for u, text in zip(dropped, captions, strict=True)]
        return images + conditions


def encode_prompts(models: TrainingModels, prompts: Sequence[str]) -> Tensor:
    """Encode B prompts to embeddings (B, L, D). A prompt that occurs several times is encoded once."""
    unique = list(dict.fromkeys(prompts))
    tokens = models.tokenizer(
        unique, padding="max_length", max_length=models.tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    embeddings = models.text_encoder(tokens.input_ids.to(models.text_encoder.device)).last_hidden_state
    places = {prompt: place for place, prompt in enumerate(unique)}
    return embeddings[torch.tensor([places[prompt] for prompt in prompts], device=embeddings.device)]
