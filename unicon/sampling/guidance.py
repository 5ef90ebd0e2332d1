"""Text and condition guidance: a pure function of the predictions, and the batch that yields them.

Tested in tests/unicon/sampling/test_loop.py, tests/unicon/test_golden.py and tests/unicon/test_one_way.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from unicon.layout import Layout
from unicon.one_way import StaticRows, split
from unicon.pairs import Pairs, Stacking
from unicon.unet_call import RunUNet, run_unet


def guide(
    positive: Tensor,
    *,
    negative: Tensor | None = None,
    guidance_scale: float = 1.0,
    without_joint: Tensor | None = None,
    condition_guidance_scale: float = 0.0,
) -> Tensor:
    """The guided prediction, all tensors (B, channels, h, w).

    negative + guidance_scale * (positive - negative)  +  condition_guidance_scale * (positive - without_joint)
    """
    guided = positive if negative is None else negative + guidance_scale * (positive - negative)
    if without_joint is not None:
        guided = guided + condition_guidance_scale * (positive - without_joint)
    return guided


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A UNet with everything that is constant over the steps of a batch: (latents, timesteps) -> prediction.

    Guidance stacks copies of the batch: negative rows, positive rows, and positive rows without the joint term. Copies
    that no scale needs are left out. Rows of one role are adjacent: all copies of the images, then of the conditions.

    With static rows, latents, timesteps and prediction are those of the other rows, and static rows are run only once.
    """

    unet: UNet2DConditionModel
    pairs: Pairs
    """Pairs of all rows before stacking."""
    prompt_embeds: Tensor
    """(B, M, text C) of all rows."""
    negative_prompt_embeds: Tensor | None = None
    """(B, M, text C). Needed when guidance_scale is not 1."""
    guidance_scale: float = 1.0
    """Text guidance; 1 means none."""
    condition_guidance_scale: float = 0.0
    """Condition guidance; 0 means none."""
    static: StaticRows | None = None
    """The rows that get nothing from joint attention and stay as they are over all steps."""
    run: RunUNet = run_unet
    """What runs the UNet: `run_unet` or a compiled form of it."""

    def __post_init__(self) -> None:
        if self.guidance_scale != 1.0 and self.negative_prompt_embeds is None:
            raise ValueError(
                f"Text guidance needs negative_prompt_embeds; guidance_scale is {self.guidance_scale} and they are "
                "absent. Give them, or guidance_scale=1."
            )

    @cached_property
    def _copies(self) -> dict[str, tuple[Pairs, Tensor]]:
        """(pairs, prompt embeddings) of every copy of the batch."""
        copies = {"positive": (self.pairs, self.prompt_embeds)}
        if self.negative_prompt_embeds is not None and self.guidance_scale != 1.0:
            copies = {"negative": (self.pairs, self.negative_prompt_embeds), **copies}
        if self.condition_guidance_scale != 0.0:
            copies["without_joint"] = (self.pairs.without_joint(), self.prompt_embeds)
        return copies

    @cached_property
    def _stacked(self) -> tuple[Layout, Stacking, Tensor, tuple[Tensor, ...]]:
        """(layout, stacking, prompt embeddings, features of static rows) of the calls of the steps."""
        copies = list(self._copies.values())
        stacking = Stacking.of(self.pairs.layout, len(copies))
        pairs = stacking.stack_pairs([pairs for pairs, _ in copies])
        if self.static is None:
            return pairs.layout, stacking, stacking.stack([embeds for _, embeds in copies]), ()
        static, moving = split(pairs, self._static_rows(stacking), self.static.projections)
        kept = [embeds[self.static.moving.index(embeds.device)] for _, embeds in copies]
        stacking = stacking.of_some(self.static.moving)
        return moving, stacking, stacking.stack(kept), self._features(static)

    def _static_rows(self, stacking: Stacking) -> Mapping[int, int]:
        """Stacked static row -> row in the batch of static rows, where equal rows are one."""
        assert self.static is not None
        has_negative = "negative" in self._copies and not self.static.ignores_negative
        return {
            stacking.place(copy, row): at
            + (len(self.static.rows.indices) if has_negative and name != "negative" else 0)
            for copy, name in enumerate(self._copies)
            for at, row in enumerate(self.static.rows.indices)
        }

    def _features(self, layout: Layout) -> tuple[Tensor, ...]:
        static = self.static
        if static is None or not layout.sources:
            return ()
        names = ["positive"] if layout.num_rows == len(static.rows.indices) else ["negative", "positive"]
        embeds = [static.rows.take(self._copies[name][1]) for name in names]
        latents, timesteps = static.latents.repeat(len(names), 1, 1, 1), static.timesteps.repeat(len(names))
        return self.run(self.unet, layout, latents, timesteps, torch.cat(embeds))

    def __call__(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """(B, channels, h, w), (B,) -> (B, channels, h, w) in the dtype of the latents."""
        layout, stacking, prompt_embeds, features = self._stacked
        (prediction,) = self.run(
            self.unet,
            layout,
            stacking.repeat(latents).to(self.unet.dtype),
            stacking.repeat(timesteps),
            prompt_embeds,
            *features,
        )
        parts = dict(zip(self._copies, stacking.unstack(prediction.to(latents.dtype)), strict=True))
        return guide(
            parts["positive"],
            negative=parts.get("negative"),
            guidance_scale=self.guidance_scale,
            without_joint=parts.get("without_joint"),
            condition_guidance_scale=self.condition_guidance_scale,
        )
