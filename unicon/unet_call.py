"""One call of the UNet as a function of a static layout and tensors.

The call goes through one function, so that a compiled one can take its place: a layout is hashable, and nothing but
tensors differs between two calls with the same layout and sizes.

Shapes: B rows, (channels, h, w) latents, M text tokens.

Tested in tests/unicon/test_one_way.py and tests/unicon/test_golden.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from unicon.layout import Layout

RunUNet = Callable[..., tuple[Tensor, ...]]
"""A function with the arguments and results of `run_unet`."""


class FeaturesComplete(Exception):  # noqa: N818 - it ends a call, and is no error
    """Raised by the last joint attention of a call whose only purpose is to keep features."""


def run_unet(
    unet: UNet2DConditionModel, layout: Layout, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor,
    *features: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run the UNet.

    Args:
        unet: The UNet. Layouts with sources or one-way groups need the inference form.
        layout: The rows of the call.
        latents: (B, channels, h, w), in any dtype.
        timesteps: (B,).
        prompt_embeds: (B, M, text C).
        features: For a layout with one-way groups, what the call for its sources returned.

    Returns:
        For a layout with sources, their features: for each block, for each source, its parts, each (rows, N, C). Else
        the prediction (B, channels, h, w) alone, in the dtype of the UNet.
    """
    kept = features_by_block(layout, features)
    arguments = {"pairs": layout, "features": kept} if layout.num_features else {"pairs": layout}
    try:
        prediction = unet(
            latents.to(unet.dtype), timesteps, prompt_embeds, cross_attention_kwargs=arguments, return_dict=False
        )[0]
    except FeaturesComplete:
        prediction = None
    if layout.sources:
        return tuple(feature for block in sorted(kept) for feature in kept[block])
    assert prediction is not None, "only calls with sources end early"
    return (prediction,)


def features_by_block(layout: Layout, features: tuple[Tensor, ...]) -> dict[int, tuple[Tensor, ...]]:
    """The features of every block: those given, or an empty dict that a call with sources fills."""
    size = layout.num_features
    return {at // size: features[at : at + size] for at in range(0, len(features), size)} if features else {}


def complete(kept: dict[int, tuple[Tensor, ...]], num_blocks: int) -> None:
    """End a call that only keeps features once every block has kept its own.

    In a compiled call, what follows is removed because nothing uses it.
    """
    if len(kept) == num_blocks and not torch.compiler.is_compiling():
        raise FeaturesComplete
