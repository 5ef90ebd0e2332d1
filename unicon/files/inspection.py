"""Whether a model folder can be loaded, judged from configurations and headers, without torch.

The checks take milliseconds, so that a command runs them before any worker starts. Loading is as strict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unicon.files.autoencoders import VAE_CLASSES, check_vae_fits, is_tiny, vae_scale, vae_values
from unicon.files.config_values import check_scheduler, check_tokenizer, check_values
from unicon.files.decoders import map_decoder_config, map_decoder_folder
from unicon.files.foreign import (
    OTHER_BASE,
    WANTED_MODEL,
    check_family,
    conversion,
    foreign_unet,
    is_ldm,
    other_format,
)
from unicon.files.headers import Shapes, check_floating, read_header, read_json
from unicon.files.shapes import current_name, text_config, text_shapes, unet_shapes, vae_shapes
from unicon.files.small_shapes import map_decoder_shapes, tiny_vae_shapes
from unicon.files.weights import WEIGHT_STEMS, part_files

_CLASSES = {"unet": ("UNet2DConditionModel",), "vae": VAE_CLASSES}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The tensors and configuration that adapters and LoRAs must fit."""

    unet: Shapes
    """Stored tensors of the UNet under the names of current diffusers."""
    text_encoder: Shapes
    """Stored tensors of the text encoder, likewise."""
    unet_config: Mapping[str, Any]


def check_model(folder: Path, vae: Path | None = None) -> ModelShape:
    """Refuse a folder that cannot be loaded as a model.

    Args:
        folder: The model folder.
        vae: The folder of its autoencoder (`unicon.files.folder.find_vae`), by default its own.

    Raises:
        FileNotFoundError: A part is absent.
        ValueError: It is something else, damaged, or its parts do not fit together.
    """
    check_family(folder)
    places = {part: folder / part for part in WEIGHT_STEMS} | ({} if vae is None else {"vae": vae})
    configs = {part: _part_config(place, part) for part, place in places.items()}
    try:
        if vae is not None:
            check_vae_fits(folder, vae, configs["unet"], configs["vae"])
        _check_configs(folder, configs)
        check_values(folder, places["vae"], configs)
        check_scheduler(folder)
        check_tokenizer(folder, text_config(configs["text_encoder"]))
        shapes = {part: check_part(place, part, configs[part]) for part, place in places.items()}
        _check_map_decoder(folder, configs["vae"])
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(
            f"Configurations are those of diffusers and transformers; one in {folder} has a value of another kind "
            f"({type(error).__name__}: {error}). Get the folder again."
        ) from error
    return ModelShape(unet=shapes["unet"], text_encoder=shapes["text_encoder"], unet_config=configs["unet"])


def _part_config(place: Path, part: str) -> dict[str, Any]:
    try:
        config = read_json(place / "config.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{WANTED_MODEL}; {error}") from error
    wanted, found = _CLASSES.get(part), config.get("_class_name")
    if wanted and found and found not in wanted:
        raise ValueError(
            f"{WANTED_MODEL}; the {part} of {place.parent} is of class {found}, not {' or '.join(wanted)}. "
            f"{OTHER_BASE}."
        )
    if part == "text_encoder" and "clip" not in str(config.get("model_type", "clip")):
        raise ValueError(f"{WANTED_MODEL}; its text encoder is CLIP, that of {place.parent} is {config['model_type']}.")
    return config


def _check_configs(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError unless the parts belong to one text-to-image model."""
    unet, vae = configs["unet"], configs["vae"]
    wanted = [("unet", "sample_size"), ("unet", "block_out_channels")]
    for part, name in wanted if is_tiny(vae) else [*wanted, ("vae", "block_out_channels")]:
        value = configs[part].get(name)
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(number) is int and number > 0 for number in numbers):
            raise ValueError(
                f"{part}/config.json of a model says {name} in whole numbers; in {folder} it is {str(value)[:99]}. "
                "Copy the file from the model."
            )
    other = foreign_unet(unet, vae_values(vae)["latent_channels"])
    if other:
        raise ValueError(f"{WANTED_MODEL}; {folder} {other}.")
    context, width = unet.get("cross_attention_dim", 1280), text_config(configs["text_encoder"])["hidden_size"]
    if isinstance(context, int) and context != width:
        raise ValueError(
            f"UNet and text encoder of a model have one width; in {folder} the UNet takes {context} and the text "
            f"encoder gives {width}. Take both from one model."
        )


def _check_map_decoder(folder: Path, vae: Mapping[str, Any]) -> None:
    """Refuse a small decoder of maps in a model folder that cannot be loaded or belongs to another model."""
    place = map_decoder_folder(folder)
    if place is not None:
        config = map_decoder_config(place, vae_values(vae)["latent_channels"], vae_scale(vae))
        check_part(place, "vae", config, map_decoder_shapes)


def _expected(part: str, config: Mapping[str, Any]) -> Shapes | None:
    if part == "vae":
        return tiny_vae_shapes(config) if is_tiny(config) else vae_shapes(config)
    return unet_shapes(config) if part == "unet" else text_shapes(config)


def check_part(
    place: Path, part: str, config: Mapping[str, Any], expected: Callable[[Mapping[str, Any]], Shapes] | None = None
) -> Shapes:
    """Shapes of a part's stored tensors by current name; refuse tensors that its configuration does not have.

    Args:
        place: The part's own folder.
        part: A key of `WEIGHT_STEMS`.
        config: Its configuration.
        expected: Names and shapes for a configuration, by default those of the part.
    """
    files = part_files(place, part)
    if not files:
        raise FileNotFoundError(_no_weights(place, part))
    stored: dict[str, tuple[int, ...]] = {}
    for file in files:
        header = read_header(file)
        check_floating(file, header, lambda key: current_name(part, key) is not None)
        stored |= header.shapes
    named = {current_name(part, key): shape for key, shape in stored.items()}
    found = {key: shape for key, shape in named.items() if key is not None}
    wanted = _expected(part, config) if expected is None else expected(config)
    if wanted is not None:
        check_names(wanted, found, f"{place}", is_ldm(stored))
    return found


def check_names(expected: Shapes, found: Shapes, place: str, ldm: bool = False) -> None:
    """Raise ValueError unless the tensors are exactly the expected ones, by name and shape."""
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    misshaped = [
        f"{key} is {found[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if not (missing or unexpected or misshaped):
        return
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        if keys
    ]
    cure = (
        "They have the names of the original code: convert the checkpoint with diffusers' from_single_file"
        if ldm
        else "Get the folder again, or take weights and config.json from one model"
    )
    raise ValueError(f"A part of a model holds exactly the tensors of its config.json; {place} has {'; '.join(parts)}. "
                     f"{cure}.")  # fmt: skip


def _no_weights(place: Path, part: str) -> str:
    folder = place.parent
    pickles = sorted(path.name for path in place.glob("*.bin") if "pytorch_model" in path.name)
    if not pickles:
        other = other_format(place)
        return (
            f"{WANTED_MODEL}; {place} {other or 'has no weights'} ({WEIGHT_STEMS[part]}.safetensors is wanted). "
            f"{'Get the same model in safetensors' if other else 'Get the folder again'}."
        )
    converted = folder.with_name(f"{folder.name}-safetensors")
    variants = {
        match[1] for name in pickles if (match := re.search(r"pytorch_model\.(\w+?)(?:-\d+-of-\d+)?\.bin$", name))
    }
    plain = any(re.search(r"pytorch_model(-\d+-of-\d+)?\.bin$", name) for name in pickles)
    variant = f", variant={min(variants)!r}" if variants and not plain else ""
    options = f"use_safetensors=False, safety_checker=None, feature_extractor=None{variant}"
    return (
        f"Weights are read from safetensors; {place} has {', '.join(pickles[:3])} alone. Convert the folder once:\n  "
        f"{conversion(f'P.from_pretrained({str(folder)!r}, {options})', converted)}\n"
        f"then give {converted}."
    )
