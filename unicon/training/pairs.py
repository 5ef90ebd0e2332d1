# diffusers declares its outputs as tuples and its configurations as plain dictionaries, and timesteps as `IntTensor`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Training on pairs of images and conditions: adapters alone, or together with the UNet and text encoder.

Shapes: S samples, B pairs per step, c h w latents, L text tokens of width D.

Source: arXiv 2410.11439, section 3.3 (independent timesteps) and appendix A (recipe).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from unicon.autoencoders import Autoencoder, encode_scaled
from unicon.training.auxiliary_heads import ConditionHeads, masked_mean
from unicon.training.joint_alignment import joint_alignment
from unicon.training.loss import row_losses
from unicon.training.models import TrainingModels, UNetOutput, normal_noise
from unicon.training.pair_layout import PairLayouts

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

    def to(self, device: torch.device | str) -> PairLatents:
        """The same with all latents on a device."""
        targets = {kind: latents.to(device) for kind, latents in self.head_targets.items()}
        return PairLatents(self.images.to(device), self.conditions.to(device), self.captions, targets)


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

    def __init__(self, groups: Sequence[PairLatents], device: torch.device | str = "cpu") -> None:
        """Hold the groups, with their latents on the device, where pairs are drawn without a copy."""
        self.groups, self.device = [group.to(device) for group in groups], torch.device(device)
        self._sizes = torch.tensor([float(len(group.captions)) for group in groups])

    def draw(self, generator: torch.Generator, batch_size: int) -> DrawnPairs:
        """See `PairSource`."""
        group = self.groups[int(torch.multinomial(self._sizes, 1, generator=generator))]
        chosen = torch.randint(len(group.captions), (batch_size,), generator=generator)
        captions = [group.captions[index] for index in chosen.tolist()]
        chosen = chosen.to(self.device, non_blocking=True)
        targets = {kind: latents[chosen] for kind, latents in group.head_targets.items()}
        return DrawnPairs(group.images[chosen], group.conditions[chosen], captions, targets)


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


class PairsLoss(Protocol):
    """A loss on pairs, see `fit`."""

    @property
    def pairs_a_step(self) -> float:
        """Mean number of pairs in a step."""
        ...

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a step."""
        ...


class MixedLoss:
    """A loss that draws one of several losses per step by their shares. It is called with a generator, see `fit`."""

    def __init__(self, losses: Sequence[PairsLoss], shares: Sequence[float]) -> None:
        if len(losses) != len(shares) or min(shares, default=0.0) <= 0:
            raise ValueError(f"every loss needs a positive share, got {len(losses)} losses and shares {list(shares)}")
        self.losses, self.shares = losses, torch.tensor(shares)

    @property
    def pairs_a_step(self) -> float:
        """See `PairsLoss`."""
        weighted = (loss.pairs_a_step * share for loss, share in zip(self.losses, self.shares.tolist(), strict=True))
        return sum(weighted) / float(self.shares.sum())

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The values of the drawn loss."""
        return self.losses[int(torch.multinomial(self.shares, 1, generator=generator))](generator)


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
        self.layouts = PairLayouts(adapter, models.unet.device)

    @property
    def pairs_a_step(self) -> float:
        """See `PairsLoss`."""
        return self.sampling.batch_size

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a step: `loss`, which is minimized, its means over images and conditions, auxiliary losses."""
        sampling, device = self.sampling, self.models.unet.device
        images, conditions, captions, head_targets = self.source.draw(generator, sampling.batch_size)
        latents = torch.cat([images.to(device, torch.float32), conditions.to(device, torch.float32)])
        noise = normal_noise(latents.shape, generator, device)
        drawn = self._timesteps_and_weights(generator)
        embeds = self.models.encode_prompts(self._prompts(captions, generator))
        timesteps, learned, weights = (each.to(device, non_blocking=True) for each in drawn)
        noisy = torch.where(
            learned[:, None, None, None], self.models.scheduler.add_noise(latents, noise, timesteps), latents
        )
        layout, attended = self.layouts.layout(weights), sampling.alignment_weight > 0
        output = self.models.call(noisy, timesteps, embeds, layout, attended=attended)
        errors = row_losses(
            output.prediction, noise=noise, timesteps=timesteps, scheduler=self.models.scheduler, latents=latents,
            min_snr_gamma=sampling.min_snr_gamma,
        )  # fmt: skip
        is_image = torch.arange(len(latents), device=device) < sampling.batch_size
        parts = {"loss": learned, "image": learned & is_image, "condition": learned & ~is_image}
        losses = {name: masked_mean(errors, rows) for name, rows in parts.items()}
        if attended:
            losses["alignment"] = joint_alignment(output.attention_inputs, self.adapter, sampling.aligned_heads)
            losses["loss"] = losses["loss"] + sampling.alignment_weight * losses["alignment"]
        return (
            losses if self.heads is None else losses | self._with_heads(losses["loss"], output, head_targets, learned)
        )

    def _with_heads(
        self, loss: Tensor, output: UNetOutput, targets: Mapping[str, Tensor], learned: Tensor
    ) -> dict[str, Tensor]:
        """The losses of the heads on the images that are not `learned`, since they are clean, added to the loss."""
        assert self.heads is not None
        count = self.sampling.batch_size
        targets = {kind: maps.to(learned.device) for kind, maps in targets.items()}
        found = self.heads.losses(output.prediction[:count], output.features[:count], targets, ~learned[:count])
        loss = loss + self.sampling.heads_weight * found["heads"]
        return {"loss": loss, **{name if name == "heads" else f"head_{name}": value for name, value in found.items()}}

    def _timesteps_and_weights(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
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

    def _prompts(self, captions: list[str], generator: torch.Generator) -> list[str]:
        """Prompts of the image rows, then of the condition rows."""
        unknown, dropped = torch.rand(2, len(captions), generator=generator).tolist()
        captions = [
            "" if u < self.sampling.caption_dropout else text for u, text in zip(unknown, captions, strict=True)
        ]
        p = self.sampling.text_dropout
        images = ["" if u < 2 * p else text for u, text in zip(dropped, captions, strict=True)]
        conditions = ["" if p < u < 3 * p else self.trigger + text for u, text in zip(dropped, captions, strict=True)]
        return images + conditions
