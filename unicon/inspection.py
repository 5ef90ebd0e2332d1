"""Whether a model folder and its adapters can be loaded and fit together, from configurations and headers alone.

Takes milliseconds and no torch, so a command judges them before any worker starts. Loading is as strict.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unicon.folder import LORA_FILE, LORA_FOLDERS, PICKLE_FILE, WEIGHT_STEMS, is_published, part_files
from unicon.foreign import (
    LORA_CURE,
    OTHER_BASE,
    WANTED_ADAPTER,
    WANTED_MODEL,
    check_family,
    conversion,
    foreign_tensors,
    foreign_unet,
    is_ldm,
)
from unicon.shapes import (
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
from unicon.tensor_files import Shapes, read_header, read_json, what_is_wrong

FORMAT = "unicon-adapter-1"
"""In the metadata of an adapter file."""
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
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
        raise ValueError(f"{WANTED_MODEL}; the {part} of {folder} is a {found}, not a {wanted}. {OTHER_BASE}.")
    if part == "text_encoder" and "clip" not in str(config.get("model_type", "clip")):
        raise ValueError(f"{WANTED_MODEL}; its text encoder is CLIP, that of {folder} is {config['model_type']}.")
    return config


def _check_configs(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Whether the parts are those of one text-to-image model."""
    unet, vae = configs["unet"], configs["vae"]
    for part, name in (("unet", "sample_size"), ("unet", "block_out_channels"), ("vae", "block_out_channels")):
        value = configs[part].get(name)
        if not value or not isinstance(value, int | list):
            raise ValueError(
                f"{part}/config.json of a model says {name}; in {folder} it is {value}. Copy the file from the model."
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


def check_scheduler(folder: Path) -> None:
    """Refuse noise schedules that are not those of denoising diffusion."""
    try:
        config = read_json(folder / "scheduler" / "scheduler_config.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"A model says its noise schedule in scheduler/scheduler_config.json; {error} Copy it from the same model."
        ) from error
    name, prediction = str(config.get("_class_name", "")), config.get("prediction_type", "epsilon")
    schedule = config.get("beta_schedule", "linear")
    if "FlowMatch" in name or config.get("use_flow_sigmas") or prediction == "flow_prediction":
        raise ValueError(f"{WANTED_MODEL}; the scheduler of {folder} ({name}) is of flow matching. {OTHER_BASE}.")
    if prediction not in PREDICTION_TYPES:
        raise ValueError(
            f"A UNet predicts {', '.join(PREDICTION_TYPES)}; the scheduler of {folder} says prediction_type "
            f"{prediction!r}. Correct scheduler/scheduler_config.json."
        )
    if schedule not in BETA_SCHEDULES and config.get("trained_betas") is None:
        raise ValueError(
            f"beta_schedule is {', '.join(BETA_SCHEDULES)}; the scheduler of {folder} ({name}) says {schedule!r}. "
            "Correct scheduler/scheduler_config.json."
        )


def check_tokenizer(folder: Path, text_values: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that is absent, or that gives tokens the text encoder does not know."""
    place = folder / "tokenizer"
    whole, parts = place / "tokenizer.json", (place / "vocab.json", place / "merges.txt")
    if not whole.is_file() and not all(path.is_file() for path in parts):
        raise FileNotFoundError(
            f"A model has its tokenizer in tokenizer/ (tokenizer.json, or vocab.json and merges.txt); {place} has not. "
            "Copy the folder tokenizer/ from the same model."
        )
    try:
        config = read_json(place / "tokenizer_config.json")
    except FileNotFoundError:
        config = {}
    positions, known = text_values["max_position_embeddings"], text_values["vocab_size"]
    length = config.get("model_max_length")
    if not isinstance(length, int) or not 0 < length <= positions:
        raise ValueError(
            f"A tokenizer says how many tokens its text encoder takes; {place / 'tokenizer_config.json'} has "
            f'model_max_length {length}. Write "model_max_length": {positions} into it.'
        )
    vocabulary = read_json(whole)["model"]["vocab"] if whole.is_file() else read_json(parts[0])
    if isinstance(vocabulary, dict) and len(vocabulary) > known:
        raise ValueError(
            f"Tokenizer and text encoder have one vocabulary; in {folder} they have {len(vocabulary)} and {known} "
            "tokens. Take both from one model."
        )


def check_part(folder: Path, part: str, config: Mapping[str, Any]) -> Shapes:
    """Shapes of a part's stored tensors under today's names; refuse others than its configuration says."""
    files = part_files(folder, part)
    if not files:
        raise FileNotFoundError(_no_weights(folder, part))
    stored: dict[str, tuple[int, ...]] = {}
    for file in files:
        stored |= read_header(file).shapes
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
    pickles = sorted(path.name for path in place.glob("*.bin"))
    if not pickles:
        return f"{WANTED_MODEL}; {place} has no weights ({WEIGHT_STEMS[part]}.safetensors). Get the folder again."
    converted = folder.with_name(f"{folder.name}-safetensors")
    options = "use_safetensors=False, safety_checker=None, feature_extractor=None"
    return (
        f"Weights are read from safetensors; {place} has {', '.join(pickles[:3])} alone. Convert the folder once:\n  "
        f"{conversion(f'P.from_pretrained({str(folder)!r}, {options})', converted)}\n"
        f"then give {converted}."
    )


def check_adapter(path: Path, shape: ModelShape) -> None:
    """Refuse what is no adapter, or one of another base.

    Raises:
        FileNotFoundError: a part of a published folder is absent. ValueError: anything else that is wrong.
    """
    if path.is_dir():
        for file in check_published_files(path):
            _check_published_lora(file, shape)
    else:
        config, found = read_adapter_header(path)
        check_base(config, path, shape)
        _check_fits(expected_adapter(shape.unet, json.loads(config["config"])), found, path)


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


def check_base(metadata: Mapping[str, str], path: Path, shape: ModelShape) -> None:
    """Refuse an adapter whose recorded base has another shape than this model."""
    base, values = json.loads(metadata.get("unet", "{}")), with_defaults(shape.unet_config, UNET_DEFAULTS)
    ours = {key: values[key] for key in UNET_SHAPE_KEYS}
    other = {key: (base.get(key), ours[key]) for key in ours if base.get(key) != ours[key]}
    if other:
        raise ValueError(
            f"An adapter fits the UNet shape it was trained on; {path} differs in (its, this model's) {other}. "
            "Give the base model of the adapter with --model, or another adapter."
        )


def expected_adapter(unet: Shapes, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors on a UNet, as `unicon.adapter.adapter_shapes` of a loaded one."""
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


def check_published_files(path: Path) -> list[Path]:
    """Files of LoRA of a published adapter; refuse a folder that is something else, or incomplete or damaged.

    Raises:
        FileNotFoundError: a part is absent. ValueError: anything else that is wrong.
    """
    if not is_published(path):
        raise ValueError(f"{WANTED_ADAPTER}; {path} {_other_folder(path)}.")
    pickled = path / PICKLE_FILE
    if not zipfile.is_zipfile(pickled):
        what = what_is_wrong(pickled) or ""
        if pickled.read_bytes()[:2] == b"PK" or "pickle" not in what:
            said = what if what and "pickle" not in what else "is cut short or damaged. Get it again"
            raise ValueError(f"{pickled} {said}.")
    files = [path / folder / LORA_FILE for folder in LORA_FOLDERS.values()]
    files = [file for file in files if file.parent.is_dir() or file.parent.name != LORA_FOLDERS["condition_adapter"]]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"A published adapter has xy_lora/{LORA_FILE} and yx_lora/{LORA_FILE} (and y_lora for depth, edge and "
                f"pose); {file} is absent. Give the folder that contains {PICKLE_FILE}, complete."
            )
    return files


def _check_published_lora(file: Path, shape: ModelShape) -> None:
    found = read_header(file).shapes
    misshaped = []
    for key, sizes in found.items():
        match = re.fullmatch(r"unet\.(.+)\.(attn1n|attn1|attn2)\.(.+)\.lora\.(down|up)\.weight", key)
        if match is None:
            continue  # reading it says so
        block, attention, layer, direction = match.groups()
        base = shape.unet.get(f"{block}.{attention.removesuffix('n')}.{layer}.weight")
        if base is None or sizes[1 if direction == "down" else 0] != base[1 if direction == "down" else 0]:
            misshaped.append(f"{key} {sizes} on {base or 'nothing'}")
    if misshaped:
        raise ValueError(
            f"An adapter fits the UNet that it was trained on; of the {len(found)} tensors of {file} {len(misshaped)} "
            f"do not fit this model: {misshaped[:2]}. Published adapters are for Stable Diffusion 1.5: give their base "
            "with --model."
        )


def _other_folder(path: Path) -> str:
    """What a folder without model.pth is, as "what. cure"."""
    if (path.parent / PICKLE_FILE).is_file():
        return f"is a part of one. Give the folder that contains {PICKLE_FILE}, {path.parent}"
    for name in (LORA_FILE, "adapter_model.safetensors"):
        if (path / name).is_file():
            return f"is the folder of a LoRA ({name}). {LORA_CURE}"
    if any((path / name).is_dir() for name in ("unet", "transformer")):
        return "is a model. Give it with --model"
    if (path / "config.json").is_file():
        kind = read_json(path / "config.json").get("_class_name", "something else")
        return f"is a {kind}. Give a UniCon adapter"
    files = sorted(file.name for file in path.glob("*.safetensors"))
    if files:
        return f"holds {', '.join(files[:3])}. Name the very file"
    return f"holds no {PICKLE_FILE}. Name the adapter's own folder or file"
