"""The configuration of a model's autoencoder, which may be diffusers' `AutoencoderKL` or `AutoencoderTiny`.

Both kinds give latents that are `scaling_factor` times those of the encoder.
For an `AutoencoderTiny` that imitates another autoencoder the factor is 1, since it imitates the scaled latents.
Imports no torch.

Tested in tests/unicon/files/test_autoencoders.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unicon.files.headers import read_json
from unicon.files.shapes import VAE_DEFAULTS, with_defaults

TINY = "AutoencoderTiny"
VAE_CLASSES = ("AutoencoderKL", TINY)
TINY_DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3, "out_channels": 3, "encoder_block_out_channels": [64, 64, 64, 64],
    "decoder_block_out_channels": [64, 64, 64, 64], "act_fn": "relu", "upsample_fn": "nearest", "latent_channels": 4,
    "upsampling_scaling_factor": 2, "num_encoder_blocks": [1, 3, 3, 3], "num_decoder_blocks": [3, 3, 3, 1],
    "scaling_factor": 1.0, "shift_factor": 0.0,
}  # fmt: skip
"""Values of an `AutoencoderTiny` that change results, with diffusers' defaults."""
ACTIVATIONS = ("silu", "swish", "mish", "gelu", "relu")
"""Activations of UNet and autoencoder."""
UPSAMPLING = ("nearest", "nearest-exact", "bilinear", "bicubic")


def is_tiny(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of an `AutoencoderTiny`."""
    return config.get("_class_name") == TINY or "encoder_block_out_channels" in config


def vae_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an autoencoder's configuration that change results."""
    return with_defaults(config, TINY_DEFAULTS if is_tiny(config) else VAE_DEFAULTS)


def vae_scale(config: Mapping[str, Any]) -> int:
    """Pixels per latent pixel along each side."""
    levels = vae_values(config)["num_encoder_blocks"] if is_tiny(config) else config["block_out_channels"]
    return 2 ** (len(levels) - 1)


def check_vae(place: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a configuration from which no autoencoder can be built."""
    values = vae_values(config)
    if is_tiny(config):
        _check_tiny(place, values)
    else:
        check_groups(place, values)
    if values["act_fn"] not in ACTIVATIONS:
        refuse_value(place, f"act_fn is one of {', '.join(ACTIVATIONS)}", values["act_fn"])
    scaling = values["scaling_factor"]
    if type(scaling) not in (int, float) or not 0 < scaling < math.inf:
        usual = "1 for one that imitates another" if is_tiny(config) else "0.18215 of Stable Diffusion 1.x and 2.x"
        refuse_value(place, f"scaling_factor is a number above 0, {usual}", scaling)


def check_groups(place: Path, values: Mapping[str, Any]) -> None:
    """Raise ValueError for a UNet or an autoencoder whose widths cannot be normalized in groups."""
    groups, widths = values["norm_num_groups"], values["block_out_channels"]
    if type(groups) is not int or groups < 1 or any(width % groups for width in widths):
        refuse_value(place, f"norm_num_groups divides every width of {widths}", groups)


def _check_tiny(place: Path, values: Mapping[str, Any]) -> None:
    for side in ("encoder", "decoder"):
        widths, blocks = values[f"{side}_block_out_channels"], values[f"num_{side}_blocks"]
        if not (_are_counts(widths, 1) and _are_counts(blocks, 0)) or widths != widths[:1] * len(blocks):
            rule = f"{side}_block_out_channels is one width for every number of num_{side}_blocks"
            refuse_value(place, rule, f"{widths} and {blocks}")
    names = ("num_encoder_blocks", "num_decoder_blocks", "upsampling_scaling_factor")
    encoder, decoder, factor = (values[name] for name in names)
    if factor != 2 or len(encoder) != len(decoder):
        rule = "the decoder doubles the sides as often as the encoder halves them"
        refuse_value(place, rule, {name: values[name] for name in names})
    if values["upsample_fn"] not in UPSAMPLING:
        refuse_value(place, f"upsample_fn is one of {', '.join(UPSAMPLING)}", values["upsample_fn"])


def _are_counts(numbers: list[Any], least: int) -> bool:
    return len(numbers) > 0 and all(type(number) is int and number >= least for number in numbers)


def check_vae_fits(folder: Path, vae: Path, unet: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValueError for an autoencoder from elsewhere whose latents are not those of the model.

    Args:
        folder: The model folder.
        vae: The autoencoder's folder.
        unet: The configuration of the UNet.
        config: The configuration of the autoencoder.
    """
    latent, wanted = vae_values(config)["latent_channels"], unet.get("in_channels", 4)
    cure = "Take an autoencoder for models of this family, such as taesd for Stable Diffusion 1.x and 2.x"
    if latent != wanted:
        raise ValueError(f"Latents have the channels that the UNet takes, {wanted} in {folder}; those of {vae} have "
                         f"{latent}. {cure}.")  # fmt: skip
    own = folder / "vae" / "config.json"
    scale = vae_scale(config)
    if own.is_file() and scale != (own_scale := vae_scale(read_json(own))):
        raise ValueError(
            f"An autoencoder has as many pixels per latent pixel as the model's own, {own_scale} in {folder}; {vae} "
            f"has {scale}. {cure}."
        )


def refuse_value(place: Path, rule: str, came: Any) -> None:
    """Raise ValueError for a value in the config.json of a part of a model."""
    raise ValueError(
        f"In {place.name}/config.json {rule}; {place.parent} says {str(came)[:200]}. Copy the file from the model."
    )
