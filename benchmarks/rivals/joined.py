# diffusers declares the blocks of its UNet as optional, and torch the children of modules loosely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOptionalCall=false
# pyright: reportOptionalMemberAccess=false, reportReturnType=false
"""Two UNets side by side, one for images and one for depth, that exchange features after every block.

The UNet for images is frozen. That for depth starts as its copy, and all of it is trained. What they exchange passes
convolutions that start as zero, so that an untrained pair computes what two single UNets compute.

Source: the idea of JointNet, arXiv 2310.06347. Here the exchange is after the first convolution and after every block
of the UNet.

Shapes: B pairs, c h w latents, M text tokens of width D.
"""

from __future__ import annotations

import copy
from collections.abc import Generator

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

Blocks = Generator[Tensor, Tensor, Tensor]
"""A call of a UNet that yields its features after every block, and goes on with those that it is sent."""


class JoinedUNets(nn.Module):
    """A frozen UNet for images and a trained copy of it for depth."""

    def __init__(self, image: UNet2DConditionModel) -> None:
        """Copy the UNet for depth, and connect both."""
        super().__init__()
        self.image, self.depth = image, copy.deepcopy(image).requires_grad_(True)
        widths = block_widths(image)
        self.to_depth = nn.ModuleList([_zero_convolution(width) for width in widths])
        self.to_image = nn.ModuleList([_zero_convolution(width) for width in widths])

    def forward(self, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor, *, exchange: bool = True) -> Tensor:
        """Predict for B images followed by their B depth maps.

        Args:
            latents: (2B, c, h, w).
            timesteps: (2B,), independent of each other.
            prompt_embeds: (2B, M, D).
            exchange: Whether the UNets exchange features. Without, each computes as if it were alone.
        """
        inputs = zip(*(each.chunk(2) for each in (latents, timesteps, prompt_embeds)), strict=True)
        calls = [call_by_blocks(unet, *each) for unet, each in zip((self.image, self.depth), inputs, strict=True)]
        image, depth = (next(call) for call in calls)
        for to_depth, to_image in zip(self.to_depth, self.to_image, strict=True):
            changed = (image + to_image(depth), depth + to_depth(image)) if exchange else (image, depth)
            image, depth = (_advance(call, features) for call, features in zip(calls, changed, strict=True))
        return torch.cat([image, depth])


def block_widths(unet: UNet2DConditionModel) -> list[int]:
    """Channels of what `call_by_blocks` yields, in its order."""
    down = [block.resnets[-1].out_channels for block in unet.down_blocks]
    up = [block.resnets[-1].out_channels for block in unet.up_blocks]
    return [unet.conv_in.out_channels, *down, unet.mid_block.resnets[-1].out_channels, *up]


def call_by_blocks(unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor) -> Blocks:
    """Call a UNet of Stable Diffusion's shape block by block.

    Yields features after the first convolution, every down block, the middle block and every up block. It is sent the
    features to go on with, which also are those that the skip connection behind a down block carries. Returns the
    prediction (B, c, h, w).
    """
    embedded = unet.time_embedding(unet.time_proj(timesteps).to(latents.dtype))
    hidden = yield unet.conv_in(latents)
    skips = [hidden]
    for block in unet.down_blocks:
        hidden, found = block(hidden, embedded, **_text(block, prompt_embeds))
        hidden = yield hidden
        skips += [*found[:-1], hidden]
    hidden = yield unet.mid_block(hidden, embedded, encoder_hidden_states=prompt_embeds)
    for block in unet.up_blocks:
        count = len(block.resnets)
        taken, skips = tuple(skips[-count:]), skips[:-count]
        hidden = yield block(hidden, res_hidden_states_tuple=taken, temb=embedded, **_text(block, prompt_embeds))
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


def _text(block: nn.Module, prompt_embeds: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": prompt_embeds} if getattr(block, "has_cross_attention", False) else {}


def _advance(call: Blocks, features: Tensor) -> Tensor:
    """The features after the next block, or the prediction after the last one."""
    try:
        return call.send(features)
    except StopIteration as end:
        return end.value


def _zero_convolution(width: int) -> nn.Conv2d:
    convolution = nn.Conv2d(width, width, 1)
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution
