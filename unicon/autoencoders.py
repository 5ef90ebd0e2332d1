# diffusers declares its outputs as tuples and its configurations as plain dictionaries.
# pyright: reportAttributeAccessIssue=false
"""The two kinds of autoencoders of a model, diffusers' `AutoencoderKL` and `AutoencoderTiny`, used alike.

Shapes: B images, c latent channels, h w latent size.

Tested in tests/unicon/test_autoencoders.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

Autoencoder: TypeAlias = AutoencoderKL | AutoencoderTiny


def encode(vae: Autoencoder, pixels: Tensor) -> Tensor:
    """Encode (B, 3, H, W) in [-1, 1] to the latents (B, c, h, w) of the encoder, the mode of their distribution."""
    encoded = vae.encode(pixels)
    return encoded.latents if isinstance(vae, AutoencoderTiny) else encoded.latent_dist.mode()


def encode_scaled(vae: Autoencoder, pixels: Tensor) -> Tensor:
    """Encode (B, 3, H, W) in [-1, 1] to scaled latents (B, c, h, w), as the UNet takes them."""
    return (encode(vae, pixels.to(vae.dtype)) - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def decode_scaled(vae: Autoencoder, latents: Tensor) -> Tensor:
    """Decode scaled latents (B, c, h, w) to (B, 3, H, W) around [-1, 1]."""
    return vae.decode((latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)).to(vae.dtype)).sample


class Float32Fallback:
    """Runs encoders and decoders in their own precision, and rows that overflow float16 again in float32."""

    def __init__(self) -> None:
        self._wide: dict[nn.Module, nn.Module] = {}

    def run(self, call: Callable[[Any, Tensor], Tensor], module: Any, inputs: Tensor) -> Tensor:
        """Return `call(module, inputs)`, (B, ...), with the rows that overflow float16 repeated in float32, one by one.

        Whether a row is repeated does not depend on its neighbors, and so neither does its result. `force_upcast` of
        an autoencoder is ignored, because it is true by default even where float16 is sufficient, as in Stable
        Diffusion 1.x and 2.x.
        """
        with torch.autocast(module.device.type, enabled=False):
            outputs = call(module, inputs)
            if module.dtype != torch.float16:
                return outputs
            good = outputs.isfinite().flatten(1).all(1) | ~inputs.to(outputs.device).isfinite().flatten(1).all(1)
            failed = [row for row, is_good in enumerate(good.tolist()) if not is_good]
            if failed:
                outputs = outputs.float()
                for row in failed:
                    outputs[row] = call(self._in_float32(module), inputs[row : row + 1])[0]
            return outputs

    def _in_float32(self, module: nn.Module) -> nn.Module:
        """The module in float32. It is kept once made, since overflow is a property of the weights."""
        if module not in self._wide:
            self._wide[module] = copy.deepcopy(module).float()
        return self._wide[module]
