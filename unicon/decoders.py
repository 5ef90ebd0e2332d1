# diffusers declares `register_to_config` without types.
# pyright: reportUntypedFunctionDecorator=false
"""`MapDecoder`: a small decoder that imitates the decoder of an autoencoder on the latents of condition maps.

Depth maps, edges and drawings of poses are simpler than photographs: a few plain convolutions suffice. Everything is a
convolution without normalization, so that the result of a row does not depend on its neighbors, nor a pixel on what is
far away. Upsampling is sub-pixel convolution (arXiv 1609.05158).

Shapes: B rows, c latent channels, h w latent size, s pixels per latent pixel.

Tested in tests/unicon/test_decoders.py. Trained by `unicon.training.decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, relu

from unicon.files.small_shapes import MAP_CHANNELS

FINEST_WIDTH = 64
"""Channels at half the resolution of the map, for models of the size of Stable Diffusion."""


def small_decoder_config(latent_channels: int, vae_scale: int, finest_width: int = FINEST_WIDTH) -> dict[str, Any]:
    """The arguments of the `MapDecoder` of a model.

    For Stable Diffusion 1.x, with 4 latent channels and 8 pixels per latent pixel, it computes 0.047 TFLOP for a map of
    512 x 512 pixels, where the autoencoder's own decoder computes 2.5.

    Args:
        latent_channels: Channels of the latents.
        vae_scale: Pixels per latent pixel along each side, a power of 2.
        finest_width: Channels at half the resolution of the map. Each coarser level has half as many more.
    """
    levels = vae_scale.bit_length() - 1
    widths = tuple(finest_width * (2 + level) // 2 for level in reversed(range(levels)))
    return {"latent_channels": latent_channels, "block_out_channels": widths, "layers_per_block": 2}


class MapDecoder(ModelMixin, ConfigMixin):
    """Decodes scaled latents (B, c, h, w) to maps (B, 3, s * h, s * w) around [-1, 1]."""

    @register_to_config
    def __init__(
        self, latent_channels: int = 4, block_out_channels: Sequence[int] = (128, 96, 64), layers_per_block: int = 2
    ) -> None:
        """Build a decoder with random weights.

        Args:
            latent_channels: Channels of the latents.
            block_out_channels: Channels at each resolution, from that of the latents to half that of the map.
            layers_per_block: Residual layers at each resolution.
        """
        super().__init__()
        widths = list(block_out_channels)
        self.conv_in = _conv(latent_channels, widths[0])
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualLayer(width) for _ in range(layers_per_block))) for width in widths
        )
        finer = [*widths[1:], MAP_CHANNELS]
        self.upsamplers = nn.ModuleList(_conv(width, 4 * after) for width, after in zip(widths, finer, strict=True))

    def forward(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, c, h, w) to maps (B, 3, s * h, s * w)."""
        hidden = self.conv_in(latents)
        for block, upsample in zip(self.blocks, self.upsamplers, strict=True):
            hidden = pixel_shuffle(upsample(block(hidden)), 2)
        return hidden


class ResidualLayer(nn.Module):
    """Two convolutions whose result is added to their input. It starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(width, width)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Add the result of both convolutions to (B, width, h, w)."""
        return hidden + self.conv2(relu(self.conv1(relu(hidden))))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
