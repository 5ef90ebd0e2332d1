# diffusers declares its configurations as plain dictionaries.
# pyright: reportAttributeAccessIssue=false
"""Auxiliary heads that predict conditions from what the UNet computes on a clean image.

A pretrained Stable Diffusion UNet has features of image content; one that starts from nothing has to learn them. When a
condition is estimated, the image branch processes a clean image at timestep 0, and its output is not used. In training
with these heads, that output predicts the negative latent of one condition (the target of a v-prediction from pure
noise), and small convolutions on the last features predict the others. The convolutions are discarded after training.
Joint attention then finds in the image branch what the condition branch needs.

Shapes: B rows, c h w latents, F channels of the last features.

Tested in tests/unicon/training/mini/test_pretrain.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn


class ConditionHeads(nn.Module):
    """Heads that predict conditions from the features of a UNet on clean images."""

    def __init__(self, unet: UNet2DConditionModel, weights: Mapping[str, float]) -> None:
        """Create the heads for a UNet.

        Args:
            unet: The UNet whose features are read.
            weights: Condition -> weight of its squared error. The first one is predicted by the UNet's own output.

        Raises:
            ValueError: There are no weights.
        """
        if not weights:
            raise ValueError("a condition must have a weight, got none")
        super().__init__()
        self.weights = dict(weights)
        features, out = unet.config.block_out_channels[0], unet.config.out_channels
        heads = {kind: nn.Conv2d(features, out, 3, padding=1) for kind in list(weights)[1:]}
        self.heads = nn.ModuleDict(heads).to(unet.device)

    def losses(
        self, output: Tensor, features: Tensor, conditions: Mapping[str, Tensor], rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Mean squared error of every condition by its name, and their weighted sum as `heads`.

        Args:
            output: Output of the UNet, (B, c, h, w).
            features: Last features of the UNet, (B, F, h, w), see `last_features`.
            conditions: Latents by condition, (B, c, h, w).
            rows: bool (B,), the rows that count; all for None. The losses are 0 if there are none.
        """
        first = next(iter(self.weights))
        found = {first: output, **{kind: head(features) for kind, head in self.heads.items()}}
        squares = {
            kind: (found[kind].float() + conditions[kind].float()).square().flatten(1).mean(1) for kind in self.weights
        }
        losses = {kind: each.mean() if rows is None else masked_mean(each, rows) for kind, each in squares.items()}
        losses["heads"] = torch.stack([weight * losses[kind] for kind, weight in self.weights.items()]).sum()
        return losses


def masked_mean(values: Tensor, rows: Tensor) -> Tensor:
    """The mean of the values (B,) of some rows, bool (B,); zero if there are none. No value is read back."""
    return torch.where(rows, values, 0).sum() / rows.sum().clamp(min=1)


@contextmanager
def last_features(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Collect the inputs of the UNet's last convolution, (B, F, h, w) each, while the context lasts."""
    seen: list[Tensor] = []
    hook = unet.conv_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
