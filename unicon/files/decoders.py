"""The small decoder of condition maps that a model folder may hold, judged from its configuration and header.

It lies in decoders/maps/ and imitates the decoder of the model's autoencoder on maps (`unicon.decoders`). Imports no
torch.

Tested in tests/unicon/files/test_decoders.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unicon.files.autoencoders import refuse_value
from unicon.files.headers import read_json
from unicon.files.weights import MAP_DECODER, WEIGHT_STEMS

CLASS_NAME = "MapDecoder"


def map_decoder_folder(folder: Path) -> Path | None:
    """The folder of a model's small decoder of maps; None for a model without."""
    place = folder / MAP_DECODER
    return place if (place / "config.json").is_file() else None


def map_decoder_config(place: Path, latent_channels: int, scale: int) -> dict[str, Any]:
    """The configuration of a small decoder, checked against the model that it belongs to.

    Args:
        place: The decoder's folder.
        latent_channels: Channels of the model's latents.
        scale: Pixels per latent pixel along each side.

    Raises:
        ValueError: It is something else, or does not fit.
    """
    config = read_json(place / "config.json")
    if config.get("_class_name") != CLASS_NAME:
        raise ValueError(
            f"A small decoder of maps is a {CLASS_NAME}, as jobs/train_decoder.py writes it; {place} holds a "
            f"{config.get('_class_name')}. Remove that folder, or train a decoder."
        )
    _check_values(place, config)
    found = (config["latent_channels"], 2 ** len(config["block_out_channels"]))
    if found != (latent_channels, scale):
        raise ValueError(
            f"A small decoder takes the latents of its model, here {latent_channels} channels and {scale} pixels per "
            f"latent pixel; {place} takes {found[0]} channels and makes {found[1]} pixels. It is another model's: "
            "train one for this model with jobs/train_decoder.py."
        )
    return config


def _check_values(place: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError for values from which no decoder can be built."""
    widths = config.get("block_out_channels")
    if not isinstance(widths, list) or not widths:
        refuse_value(place, "block_out_channels is a list of widths", widths)
    for name, numbers in (("block_out_channels", widths), ("latent_channels", [config.get("latent_channels")]),
                          ("layers_per_block", [config.get("layers_per_block")])):  # fmt: skip
        if not all(type(number) is int and 0 < number <= 4096 for number in numbers or []):
            refuse_value(place, f"{name} is of whole numbers from 1 to 4096", config.get(name))


def foreign_content(place: Path) -> str | None:
    """Name of something in a folder that is no part of a small decoder; None where the folder may be written."""
    if not place.exists():
        return None
    if not place.is_dir():
        return place.name
    own = {"config.json", f"{WEIGHT_STEMS['vae']}.safetensors"}
    other = next((path.name for path in sorted(place.iterdir()) if path.name not in own), None)
    config = place / "config.json"
    return other or ("config.json" if config.exists() and read_json(config).get("_class_name") != CLASS_NAME else None)
