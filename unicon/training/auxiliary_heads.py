"""Seeing: what the UNet makes of a clean picture shows the picture's conditions.

A pretrained Stable Diffusion UNet knows what pictures are made of; one that starts from nothing has to learn it. The
image branch sees a clean picture at timestep 0 when a condition is estimated, and its output is never used there. Here
that output predicts minus the latent of one condition, the target of a v-prediction from pure noise, and small
convolutions on the last features predict the others; they are thrown away after the training. Joint attention then
finds in the image branch what a condition branch has to say.

Shapes: ``B`` rows, ``c h w`` latent, ``F`` channels of the last features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn


class Seeing(nn.Module):
    """Reads conditions from a UNet's work on clean pictures."""

    def __init__(self, unet: UNet2DConditionModel, weights: Mapping[str, float]) -> None:
        """Args:
        unet: whose features are read.
        weights: of each condition's squared error; the first is what the UNet's own output predicts.
        """
        if not weights:
            raise ValueError("a condition must have a weight, got none")
        super().__init__()
        self.weights = dict(weights)
        features, out = unet.config.block_out_channels[0], unet.config.out_channels
        heads = {kind: nn.Conv2d(features, out, 3, padding=1) for kind in list(weights)[1:]}
        self.heads = nn.ModuleDict(heads).to(unet.device)

    def losses(self, output: Tensor, features: Tensor, conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of every condition, under its name, and ``seeing``, their weighted sum.

        Args:
            output: (B, c, h, w) of the UNet.
            features: (B, F, h, w) its last ones, see ``last_features``.
            conditions: (B, c, h, w) latents by name.
        """
        first = next(iter(self.weights))
        found = {first: output, **{kind: head(features) for kind, head in self.heads.items()}}
        losses = {kind: (found[kind].float() + conditions[kind].float()).square().mean() for kind in self.weights}
        losses["seeing"] = torch.stack([weight * losses[kind] for kind, weight in self.weights.items()]).sum()
        return losses


@contextmanager
def last_features(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Collects what the UNet's last convolution is given, (B, F, h, w) each, while the context lasts."""
    seen: list[Tensor] = []
    hook = unet.conv_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
