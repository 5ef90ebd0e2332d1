"""Whether a model folder and its adapters can be loaded and fit together, from configurations and headers alone.

Takes milliseconds and no torch, so a command judges them before any worker starts. Loading is as strict.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unicon.files.config_values import check_scheduler, check_tokenizer, check_values
from unicon.files.folder import LORA_FOLDERS, PICKLE_FILE, WEIGHT_STEMS, part_files
from unicon.files.foreign import (
    OTHER_BASE,
    WANTED_ADAPTER,
    WANTED_MODEL,
    check_family,
    conversion,
    foreign_tensors,
    foreign_unet,
    is_ldm,
    other_format,
)
from unicon.files.headers import Shapes, check_floating, first_endless, read_header, read_json
from unicon.files.official import check_published_files, lora_shapes, pickled_projections
from unicon.files.shapes import (
    UNET_DEFAULTS,
    UNET_SHAPE_KEYS,
    VAE_DEFAULTS,
    current_name,
    text_config,
    text_shapes,
    unet_shapes,
    vae_shapes,
    with_defaults,
)

FORMAT = "unicon-adapter-1"
"""In the metadata of an adapter file."""
KINDS = ("depth", "edge", "pose", "appearance", "identity", "id")
"""Of conditions: the keys of `unicon.conditions.CONDITIONS`, which a test compares, for it imports torch."""
_EXPECTED = {"unet": unet_shapes, "vae": vae_shapes, "text_encoder": text_shapes}
_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What adapters and LoRAs must fit."""

    unet: Shapes
    """Of the files, under today's names."""
    text_encoder: Shapes
    unet_config: Mapping[str, Any]


def check_model(folder: Path) -> ModelShape:
    """Refuse what cannot be loaded as a model.

    Raises:
        FileNotFoundError: a part is absent. ValueError: it is something else, damaged, or its parts do not fit.
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
    """Whether the parts are those of one text-to-image model."""
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
    """Shapes of a part's stored tensors under today's names; refuse others than its configuration says."""
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
    """ValueError unless tensors are exactly the expected ones, by name and shape; the message names the first ones."""
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


def check_adapter(path: Path, shape: ModelShape) -> None:
    """Refuse what is no adapter, one of another base, and one whose weights are not finite.

    Raises:
        FileNotFoundError: a part of a published folder is absent. ValueError: anything else that is wrong.
    """
    if path.is_dir():
        _check_published(path, shape)
    else:
        metadata, found = read_adapter_header(path)
        check_base(metadata, path, shape)
        _check_fits(expected_adapter(shape.unet, adapter_values(metadata, path)), found, path)
        check_weights(path)


def _check_published(path: Path, shape: ModelShape) -> None:
    files = check_published_files(path)
    found = lora_shapes(files)
    ranks = sorted({sizes[0] for key, sizes in found.items() if ".lora_A." in key and sizes})
    condition_adapter = any(file.parent.name == LORA_FOLDERS["condition_adapter"] for file in files)
    expected = expected_adapter(
        shape.unet, {"rank": ranks[0] if ranks else 1, "condition_adapter": condition_adapter}
    )  # fmt: skip
    projections = pickled_projections(path / PICKLE_FILE)
    # the shapes of projections, which say fused or separate, are known when the pickle is loaded
    found |= {key: expected.get(key, ()) for key in projections}
    wrong = sorted(key for key in {*expected, *found} if key not in expected or expected[key] != found.get(key))
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"An adapter fits the UNet that it was trained on; {len(wrong)} tensors of {path} do not fit this model: "
            f"{key} is {found.get(key, 'absent')} instead of {expected.get(key, 'absent')}. Published adapters are for "
            "Stable Diffusion 1.5: give their base with --model, and a whole folder."
        )


def check_kind(kind: str, path: Path) -> None:
    """Refuse an adapter of a kind of condition that nobody knows. Raises ValueError."""
    if kind not in KINDS:
        raise ValueError(
            f"The kinds of conditions are {', '.join(KINDS)}; the adapter {path} is of kind {kind[:99]!r}. Name it "
            "after its kind: --adapter KIND=PATH."
        )


def check_weights(path: Path) -> None:
    """ValueError for weights in a file that are no finite floating-point numbers."""
    check_floating(path, read_header(path))
    endless = first_endless(path)
    if endless:
        raise ValueError(f"Weights are finite numbers; {endless} of {path} is not. Get the file again.")


def read_adapter_header(path: Path) -> tuple[dict[str, str], Shapes]:
    """(metadata, shapes) of an adapter file of ours.

    Raises:
        ValueError: it is something else; the message says what.
    """
    if path.name == PICKLE_FILE:
        raise ValueError(f"{WANTED_ADAPTER}; {path} is a part of one. Give its folder, {path.parent}.")
    header = read_header(path)
    if header.metadata.get("format") == FORMAT:
        return header.metadata, header.shapes
    what, cure = foreign_tensors(header.shapes) or ("is none of them", "Correct the path")
    if "part of a published" in what:
        cure = f"Give the folder that holds xy_lora/, yx_lora/ and model.pth: {path.parent.parent}"
    said = header.metadata.get("format")
    raise ValueError(f"{WANTED_ADAPTER} (format {FORMAT!r} in the metadata); {path} {what}"
                     f"{f' (format {said!r})' if said not in (None, 'pt') else ''}. {cure}.")  # fmt: skip


_ADAPTER_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "kind": lambda value: isinstance(value, str),
    "rank": lambda value: type(value) is int and value >= 1,
    "alpha": lambda value: isinstance(value, int | float) and 0 <= value < math.inf,
    "projection": lambda value: value in ("fused", "separate"),
    "condition_adapter": lambda value: isinstance(value, bool),
    "trigger": lambda value: value is None or isinstance(value, str),
    "estimation_steps": lambda value: type(value) is int and 1 <= value <= 1000,
    "estimation_views": lambda value: value in (1, 2, 4),
    "annotator": lambda value: isinstance(value, str),
}
"""Fields of `unicon.adapters.config.AdapterConfig`, as a test compares, and what they can be."""


def adapter_values(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The configuration in the metadata of an adapter file. Raises ValueError for another one than ours."""
    values = _object(metadata, "config", path)
    wrong = [name for name, value in values.items() if name not in _ADAPTER_VALUES or not _ADAPTER_VALUES[name](value)]
    if wrong or "name" not in values:
        name = wrong[0] if wrong else "name"
        raise ValueError(
            f"An adapter file says its configuration in its metadata; that of {path} is damaged or "
            f"of another version ({name} {str(values.get(name))[:99]!r}). Update this package, or get the adapter "
            "again."
        )
    return values


def _object(metadata: Mapping[str, str], name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(metadata[name])
    except (KeyError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"An adapter file says its configuration and its base in its metadata; {path} has no {name} there that can "
            "be read. Get the adapter again."
        )
    return value


def adapter_base(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The shape of the base in the metadata of an adapter file. Raises ValueError where there is none."""
    return _object(metadata, "unet", path)


def check_base(metadata: Mapping[str, str], path: Path, shape: ModelShape) -> None:
    """Refuse an adapter whose recorded base has another shape than this model."""
    base, values = adapter_base(metadata, path), with_defaults(shape.unet_config, UNET_DEFAULTS)
    ours = {key: values[key] for key in UNET_SHAPE_KEYS}
    other = {key: (base.get(key), ours[key]) for key in ours if base.get(key) != ours[key]}
    if other:
        raise ValueError(
            f"An adapter fits the UNet shape it was trained on; {path} differs in (its, this model's) {other}. "
            "Give the base model of the adapter with --model, or another adapter."
        )


def expected_adapter(unet: Shapes, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors on a UNet, as `unicon.adapters.unet.adapter_shapes` of a loaded one."""
    rank = int(config.get("rank", 64))
    attentions = {"image": ("attn1",), "condition": ("attn1",)}
    if config.get("condition_adapter", True):
        attentions["condition_adapter"] = ("attn1", "attn2")
    expected: dict[str, tuple[int, ...]] = {}
    for key in unet:
        match = re.fullmatch(r"(.+\.transformer_blocks\.\d+)\.(attn[12])\.(to_q|to_k|to_v|to_out\.0)\.weight", key)
        if match is None:
            continue
        block, attention, layer = match.groups()
        outputs, inputs = unet[key]
        for kind, places in attentions.items():
            if attention in places:
                expected[f"{block}.{attention}.{layer}.lora_A.{kind}.weight"] = (rank, inputs)
                expected[f"{block}.{attention}.{layer}.lora_B.{kind}.weight"] = (outputs, rank)
        if (attention, layer) == ("attn1", "to_out.0"):
            width = outputs * (2 if config.get("projection", "fused") == "fused" else 1)
            expected[f"{block}.attn1.joint_out.weight"] = (width, width)
    return expected


def _check_fits(expected: Shapes, found: Shapes, path: Path) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    misshaped = [f"{key}: {found[key]} instead of {expected[key]}" for key in sorted(set(expected) & set(found))
                 if found[key] != expected[key]]  # fmt: skip
    if missing or unexpected or misshaped:
        raise ValueError(
            f"An adapter holds exactly the tensors of its UNet and configuration. {path}: {len(missing)} missing "
            f"{missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}, {len(misshaped)} of another shape "
            f"{misshaped[:3]}. Use the base model that the adapter was trained with, and a whole file."
        )
