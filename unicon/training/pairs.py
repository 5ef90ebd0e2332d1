"""Training on image and condition pairs: adapters alone, or together with the UNet and text encoder around them.

Source: arXiv 2410.11439, section 3.3 (independent timesteps) and appendix A (recipe).
Shapes: ``S`` samples, ``B`` pairs a step, ``c h w`` latent, ``L D`` text tokens and their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from unicon.pairs import Pair, Pairs
from unicon.training.auxiliary_heads import Seeing, last_features
from unicon.training.fit import Loss
from unicon.training.joint_alignment import attention_inputs, joint_alignment
from unicon.training.loss import diffusion_loss

NOISY_SHARE = 0.95
"""The timestep of a nearly pure noise is drawn from this share of the schedule upwards."""


@dataclass(frozen=True)
class PairLatents:
    """Images and their conditions of one size, encoded."""

    images: Tensor
    """(S, c, h, w) scaled latents."""
    conditions: Tensor
    """(S, c, h, w) scaled latents."""
    captions: tuple[str, ...]
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    """(S, c, h, w) each: what clean images show, for `Seeing`."""


class DrawnPairs(NamedTuple):
    """Images and conditions of one size as scaled latents (B, c, h, w), B captions; ``seen`` as in `PairLatents`."""

    images: Tensor
    conditions: Tensor
    captions: list[str]
    seen: Mapping[str, Tensor] = MappingProxyType({})


class PairSource(Protocol):
    """Where training pairs come from."""

    def draw(self, generator: torch.Generator, batch_size: int) -> DrawnPairs:
        """Random pairs of one size.

        Every random choice comes from ``generator``: the same generator draws the same pairs.
        """
        ...


class LatentGroups:
    """Pairs drawn from latents in memory: a group by its number of samples, then samples of it, with replacement."""

    def __init__(self, groups: Sequence[PairLatents]) -> None:
        self.groups = groups
        self._sizes = torch.tensor([float(len(group.captions)) for group in groups])

    def draw(self, generator: torch.Generator, batch_size: int) -> DrawnPairs:
        """See ``PairSource``."""
        group = self.groups[int(torch.multinomial(self._sizes, 1, generator=generator))]
        chosen = torch.randint(len(group.captions), (batch_size,), generator=generator)
        return DrawnPairs(
            group.images[chosen],
            group.conditions[chosen],
            [group.captions[index] for index in chosen.tolist()],
            {kind: latents[chosen] for kind, latents in group.seen.items()},
        )


@dataclass(frozen=True, kw_only=True)
class PairSampling:
    """What a training step sees. The defaults are the published recipe."""

    batch_size: int = 16
    """Pairs a step; the UNet gets twice as many rows."""
    text_dropout: float = 0.1
    """p: with one u a pair, the image's prompt is dropped when u < 2p, the condition's when p < u < 3p."""
    caption_dropout: float = 0.0
    """Fraction of pairs without a caption; their condition keeps its trigger text, as when photographs are labelled."""
    clean_image_fraction: float = 0.0
    """Fraction of pairs whose image stands at timestep 0, clean, as it does when a condition is estimated."""
    clean_condition_fraction: float = 0.0
    """Fraction of pairs whose condition stands at timestep 0, clean, as it does when an image is synthesised."""
    noisy_condition_fraction: float = 0.0
    """Of the pairs with a clean image, the fraction whose condition is nearly pure noise: the first steps decide an
    estimate, and with one step there are no others."""
    unjoined_fraction: float = 0.0
    """Fraction of pairs without joint attention: they teach a trained UNet to stand alone."""
    min_snr_gamma: float | None = 5.0
    """Loss weighting, arXiv 2303.09556; None for none."""
    alignment_weight: float = 0.0
    """Weight of `joint_alignment`, for UNets that are not pretrained."""
    aligned_heads: int = 2
    """Heads of every joint attention that `alignment_weight` acts on."""
    seeing_weight: float = 1.0
    """Weight of `Seeing`, where a `PairLoss` is given one."""

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
    """One of several losses a step, drawn by their shares; call it with a generator (see ``fit``)."""

    def __init__(self, losses: Sequence[Loss], shares: Sequence[float]) -> None:
        if len(losses) != len(shares) or min(shares, default=0.0) <= 0:
            raise ValueError(f"every loss needs a positive share, got {len(losses)} losses and shares {list(shares)}")
        self.losses, self.shares = losses, torch.tensor(shares)

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The chosen loss's values."""
        return self.losses[int(torch.multinomial(self.shares, 1, generator=generator))](generator)


@dataclass(frozen=True)
class TrainingModels:
    """The parts of a Stable Diffusion model that a pair passes through."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The UNet's and the text encoder's, by name."""
        return dict(nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder}).named_parameters())


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, pixels: Tensor, batch_size: int | None = None) -> Tensor:
    """(S, 3, H, W) in [-1, 1] -> (S, c, h, w) float16 scaled latents (means of the posterior).

    batch_size: 32 when None, 4 on a CPU, where more leave its cache (83 pictures of 128 x 128 a second, 44 with 64).
    """
    batch_size = batch_size or (4 if vae.device.type == "cpu" else 32)
    parts = [vae.encode(part.to(vae.device)).latent_dist.mean for part in pixels.split(batch_size)]
    return (torch.cat(parts) * vae.config.scaling_factor).half().cpu()


class PairLoss:
    """The loss of one adapter on random pairs; call it with a generator (see ``fit``)."""

    def __init__(
        self,
        models: TrainingModels,
        adapter: str,
        trigger: str,
        source: PairSource,
        sampling: PairSampling,
        seeing: Seeing | None = None,
    ) -> None:
        self.models, self.adapter, self.trigger, self.source, self.sampling = models, adapter, trigger, source, sampling
        self.seeing = seeing

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A step: ``loss``, what is minimised, and its parts: means over images, over conditions, and the aids'."""
        sampling, device = self.sampling, self.models.unet.device
        images, conditions, captions, seen = self.source.draw(generator, sampling.batch_size)
        latents = torch.cat([images.float(), conditions.float()])  # autocast to bfloat16 refuses to join float16
        noise = torch.randn(latents.shape, generator=generator)
        timesteps, learned, pairs = self._timesteps_and_pairs(generator)
        embeds = encode_prompts(self.models, self._prompts(captions, generator))
        latents, noise, timesteps, learned = (x.to(device) for x in (latents, noise, timesteps, learned))
        noisy = torch.where(
            learned[:, None, None, None], self.models.scheduler.add_noise(latents, noise, timesteps), latents
        )
        unet = self.models.unet
        watched_attention = attention_inputs(unet) if sampling.alignment_weight else nullcontext([])
        with watched_attention as attended, last_features(unet) as features:
            prediction = unet(noisy, timesteps, embeds, cross_attention_kwargs={"pairs": pairs}).sample
        is_image = torch.arange(2 * sampling.batch_size, device=device) < sampling.batch_size
        watched = {"loss": learned, "image": learned & is_image, "condition": learned & ~is_image}
        losses = {n: self._masked_loss(prediction, latents, noise, timesteps, rows) for n, rows in watched.items()}
        if sampling.alignment_weight:
            losses["alignment"] = joint_alignment(attended, self.adapter, sampling.aligned_heads)
            losses["loss"] = losses["loss"] + sampling.alignment_weight * losses["alignment"]
        clean = torch.nonzero((is_image & ~learned)[: sampling.batch_size])[:, 0]
        if self.seeing is not None and len(clean):
            shown = {kind: maps.to(device)[clean] for kind, maps in seen.items()}
            parts = self.seeing.losses(prediction[clean], features[0][clean], shown)
            losses |= {name if name == "seeing" else f"seen_{name}": value for name, value in parts.items()}
            losses["loss"] = losses["loss"] + sampling.seeing_weight * losses["seeing"]
        return losses

    def _masked_loss(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, rows: Tensor
    ) -> Tensor:
        """Mean loss of some rows, zero when there are none."""
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
        """(2B,) timesteps, independent but for the clean fractions; (2B,) rows to learn from; the pairs.

        The noise in a row that was drawn clean cannot be told from its content, so there is nothing to learn from it.
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
    """Prompts (B) -> (B, L, D) embeddings; a prompt that occurs often is encoded once."""
    unique = list(dict.fromkeys(prompts))
    tokens = models.tokenizer(
        unique, padding="max_length", max_length=models.tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    embeddings = models.text_encoder(tokens.input_ids.to(models.text_encoder.device)).last_hidden_state
    places = {prompt: place for place, prompt in enumerate(unique)}
    return embeddings[torch.tensor([places[prompt] for prompt in prompts], device=embeddings.device)]
