"""Text and condition guidance: a pure function of the predictions, and the batch layout that yields them.

Tested in tests/unicon/sampling/test_loop.py and tests/unicon/test_golden.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from unicon.pairs import Pairs


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

    Guidance stacks the batch: negative rows, positive rows, and positive rows without the joint term. Rows that no
    scale needs are left out.
    """

    unet: UNet2DConditionModel
    pairs: Pairs
    """Pairs of the rows before stacking."""
    prompt_embeds: Tensor
    """(B, M, text C)."""
    negative_prompt_embeds: Tensor | None = None
    """(B, M, text C). Needed when guidance_scale is not 1."""
    guidance_scale: float = 1.0
    """Text guidance; 1 means none."""
    condition_guidance_scale: float = 0.0
    """Condition guidance; 0 means none."""

    def __post_init__(self) -> None:
        if self.guidance_scale != 1.0 and self.negative_prompt_embeds is None:
            raise ValueError(
                f"Text guidance needs negative_prompt_embeds; guidance_scale is {self.guidance_scale} and they are "
                "absent. Give them, or guidance_scale=1."
            )

    @cached_property
    def _stacked(self) -> tuple[Pairs, Tensor, int]:
        """(pairs, prompt embeddings, number of copies) of the stacked batch."""
        copies, embeds = [self.pairs], [self.prompt_embeds]
        if self.negative_prompt_embeds is not None and self.guidance_scale != 1.0:
            copies.insert(0, self.pairs)
            embeds.insert(0, self.negative_prompt_embeds)
        if self.condition_guidance_scale != 0.0:
            copies.append(self.pairs.without_joint())
            embeds.append(self.prompt_embeds)
        return Pairs.concatenate(copies), torch.cat(embeds), len(copies)

    def __call__(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """(B, channels, h, w), (B,) -> (B, channels, h, w) in the dtype of the latents."""
        pairs, prompt_embeds, copies = self._stacked
        prediction = self.unet(
            torch.cat([latents] * copies).to(self.unet.dtype),
            timesteps.repeat(copies),
            prompt_embeds,
            cross_attention_kwargs={"pairs": pairs},
            return_dict=False,
        )[0]
        parts = list(prediction.to(latents.dtype).chunk(copies))
        negative = parts.pop(0) if self.guidance_scale != 1.0 else None
        return guide(
            parts[0],
            negative=negative,
            guidance_scale=self.guidance_scale,
            without_joint=parts[1] if self.condition_guidance_scale != 0.0 else None,
            condition_guidance_scale=self.condition_guidance_scale,
        )
