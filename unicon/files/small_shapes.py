"""Names and shapes of the tensors of small autoencoders and decoders, derived from their configurations without torch.

They equal those of diffusers' `AutoencoderTiny` and of `unicon.decoders.MapDecoder`, as a test verifies.

Tested in tests/unicon/files/test_small_shapes.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unicon.files.autoencoders import vae_values
from unicon.files.shapes import Named, Shape, conv_shapes

MAP_CHANNELS = 3
"""Channels of a decoded map, as of an image."""


def tiny_vae_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Names and shapes of the tensors of an `AutoencoderTiny`. Layers without weights count in the names."""
    values = vae_values(config)
    return dict([*_tiny_encoder(values), *_tiny_decoder(values)])


def _tiny_encoder(values: Mapping[str, Any]) -> Named:
    width, index = values["encoder_block_out_channels"][0], 0
    for level, blocks in enumerate(values["num_encoder_blocks"]):
        first = conv_shapes(f"encoder.layers.{index}", values["in_channels"] if level == 0 else width, width)
        yield from first if level == 0 else list(first)[:1]  # strided convolutions have no bias
        yield from _tiny_blocks("encoder", index + 1, blocks, width)
        index += 1 + blocks
    yield from conv_shapes(f"encoder.layers.{index}", width, values["latent_channels"])


def _tiny_decoder(values: Mapping[str, Any]) -> Named:
    width, counts = values["decoder_block_out_channels"][0], values["num_decoder_blocks"]
    yield from conv_shapes("decoder.layers.0", values["latent_channels"], width)
    index = 2  # after an activation
    for blocks in counts[:-1]:
        yield from _tiny_blocks("decoder", index, blocks, width)
        index += blocks + 2  # after an upsampling
        yield from list(conv_shapes(f"decoder.layers.{index - 1}", width, width))[:1]
    yield from _tiny_blocks("decoder", index, counts[-1], width)
    yield from conv_shapes(f"decoder.layers.{index + counts[-1]}", width, values["out_channels"])


def _tiny_blocks(side: str, start: int, count: int, width: int) -> Named:
    for index in range(start, start + count):
        for layer in (0, 2, 4):
            yield from conv_shapes(f"{side}.layers.{index}.conv.{layer}", width, width)


def map_decoder_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Names and shapes of the tensors of a `MapDecoder`."""
    widths: Sequence[int] = config["block_out_channels"]
    shapes = dict(conv_shapes("conv_in", config["latent_channels"], widths[0]))
    for level, (width, finer) in enumerate(zip(widths, [*widths[1:], MAP_CHANNELS], strict=True)):
        for layer in range(config["layers_per_block"]):
            for conv in ("conv1", "conv2"):
                shapes |= dict(conv_shapes(f"blocks.{level}.{layer}.{conv}", width, width))
        shapes |= dict(conv_shapes(f"upsamplers.{level}", width, 4 * finer))
    return shapes
