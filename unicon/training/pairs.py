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
from unicon.training.models import TrainingModels, UNetOutput
from unicon.training.pair_rows import PairRows, PairSampling


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


class PairLoss(PairRows):
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
        super().__init__(models, adapter, trigger, sampling)
        self.source, self.heads = source, heads

    @property
    def pairs_a_step(self) -> float:
        """See `PairsLoss`."""
        return self.sampling.batch_size

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a step: `loss`, which is minimized, its means over images and conditions, auxiliary losses."""
        count, device = self.sampling.batch_size, self.models.unet.device
        drawn = self.source.draw(generator, count)
        images, conditions = (each.to(device, torch.float32) for each in (drawn.images, drawn.conditions))
        draws, attended = self.draw(images.shape[1:], generator), self.sampling.alignment_weight > 0
        errors, learned, output = self.predict(images, conditions, drawn.captions, draws, attended=attended)
        is_image = torch.arange(2 * count, device=device) < count
        parts = {"loss": learned, "image": learned & is_image, "condition": learned & ~is_image}
        losses = {name: masked_mean(errors, rows) for name, rows in parts.items()}
        if attended:
            losses["alignment"] = joint_alignment(output.attention_inputs, self.adapter, self.sampling.aligned_heads)
            losses["loss"] = losses["loss"] + self.sampling.alignment_weight * losses["alignment"]
        if self.heads is None:
            return losses
        return losses | self._with_heads(losses["loss"], output, drawn.head_targets, learned)

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
