"""Names and shapes of small autoencoders and decoders, derived without torch, are those of the modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny

from unicon.decoders import MapDecoder, small_decoder_config
from unicon.files.small_shapes import map_decoder_shapes, tiny_vae_shapes

ODD = {
    "encoder_block_out_channels": [8, 8, 8], "num_encoder_blocks": [0, 2, 1], "latent_channels": 16,
    "decoder_block_out_channels": [12, 12, 12], "num_decoder_blocks": [2, 1, 0],
}  # fmt: skip


def shapes_of(cls: Any, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        module = cls.from_config(config)
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("config", [{"_class_name": "AutoencoderTiny"}, ODD], ids=["taesd", "odd"])
def test_tiny_autoencoders(config: dict[str, Any]) -> None:
    assert tiny_vae_shapes(config) == shapes_of(AutoencoderTiny, config)


@pytest.mark.parametrize(("channels", "scale", "width"), [(4, 8, 64), (16, 2, 16), (8, 4, 24)])
def test_map_decoders(channels: int, scale: int, width: int) -> None:
    config = small_decoder_config(channels, scale, width)
    assert map_decoder_shapes(config) == shapes_of(MapDecoder, config)
