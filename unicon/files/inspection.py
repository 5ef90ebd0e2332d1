"""Whether a model folder can be loaded, judged from configurations and headers, without torch.

The checks take milliseconds, so that a command runs them before any worker starts. Loading is as strict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unicon.files.config_values import check_scheduler, check_tokenizer, check_values
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
from unicon.files.shapes import (
    VAE_DEFAULTS,
    current_name,
    text_config,
    text_shapes,
    unet_shapes,
    vae_shapes,
)
from unicon.files.weights import WEIGHT_STEMS, part_files

_EXPECTED = {"unet": unet_shapes, "vae": vae_shapes, "text_encoder": text_shapes}
_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The tensors and configuration that adapters and LoRAs must fit."""

    unet: Shapes
    """Stored tensors of the UNet under the names of current diffusers."""
    text_encoder: Shapes
    """Stored tensors of the text encoder, likewise."""
    unet_config: Mapping[str, Any]


def check_model(folder: Path) -> ModelShape:
    """Refuse a folder that cannot be loaded as a model.

    Raises:
        FileNotFoundError: A part is absent.
        ValueError: It is something else, damaged, or its parts do not fit together.
    """
    check_family(folder)
    configs = {part: _part_config(folder, part) for part in WEIGHT_STEMS}
    try:
        _check_configs(folder, configs)
        check_values(folder, configs)
        check_scheduler(folder)
        check_tokenizer(folder, text_config(configs["text_encoder"]))
        shapes = {part: check_part(folder, part, config) for part, config in configs.items()}
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(
            f"Configurations are those of diffusers and transformers; one in {folder} has a value of another kind "
            f"({type(error).__name__}: {error}). Get the folder again."
        ) from error
    return ModelShape(unet=shapes["unet"], text_encoder=shapes["text_encoder"], unet_config=configs["unet"])


def _part_config(folder: Path, part: str) -> dict[str, Any]:
    try:
        config = read_json(folder / part / "config.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{WANTED_MODEL}; {error}") from error
    wanted, found = _CLASSES.get(part), config.get("_class_name")
    if wanted and found and found != wanted:
        raise ValueError(f"{WANTED_MODEL}; the {part} of {folder} is of class {found}, not {wanted}. {OTHER_BASE}.")
    if part == "text_encoder" and "clip" not in str(config.get("model_type", "clip")):
        raise ValueError(f"{WANTED_MODEL}; its text encoder is CLIP, that of {folder} is {config['model_type']}.")
    return config


def _check_configs(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError unless the parts belong to one text-to-image model."""
    unet, vae = configs["unet"], configs["vae"]
    for part, name in (("unet", "sample_size"), ("unet", "block_out_channels"), ("vae", "block_out_channels")):
        value = configs[part].get(name)
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(number) is int and number > 0 for number in numbers):
            raise ValueError(
                f"{part}/config.json of a model says {name} in whole numbers; in {folder} it is {str(value)[:99]}. "
                "Copy the file from the model."
            )
    other = foreign_unet(unet, vae.get("latent_channels", VAE_DEFAULTS["latent_channels"]))
    if other:
        raise ValueError(f"{WANTED_MODEL}; {folder} {other}.")
    context, width = unet.get("cross_attention_dim", 1280), text_config(configs["text_encoder"])["hidden_size"]
    if isinstance(context, int) and context != width:
        raise ValueError(
            f"UNet and text encoder of a model have one width; in {folder} the UNet takes {context} and the text "
            f"encoder gives {width}. Take both from one model."
        )


def check_part(folder: Path, part: str, config: Mapping[str, Any]) -> Shapes:
    """Shapes of a part's stored tensors by current name; refuse tensors that its configuration does not have."""
    files = part_files(folder, part)
    if not files:
        raise FileNotFoundError(_no_weights(folder, part))
    stored: dict[str, tuple[int, ...]] = {}
    for file in files:
        header = read_header(file)
        check_floating(file, header, lambda key: current_name(part, key) is not None)
        stored |= header.shapes
    named = {current_name(part, key): shape for key, shape in stored.items()}
    found = {key: shape for key, shape in named.items() if key is not None}
    expected = _EXPECTED[part](config)
    if expected is not None:
        check_names(expected, found, f"{folder}/{part}", is_ldm(stored))
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


def _no_weights(folder: Path, part: str) -> str:
    place = folder / part
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
