"""Checking that a model can be built and sampled with the values in its configurations. Imports no torch.

Tested in tests/unicon/files/test_inspection.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unicon.files.autoencoders import ACTIVATIONS, check_groups, check_vae, refuse_value
from unicon.files.foreign import OTHER_BASE, WANTED_MODEL
from unicon.files.headers import read_json
from unicon.files.shapes import UNET_DEFAULTS, text_config, with_defaults

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
TEXT_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish")
_OTHER_SCHEDULES = ("EDM", "CMStochasticIterative", "KarrasVe", "ScoreSde", "VQDiffusion", "Amused", "DDPMWuerstchen",
                    "SCM")  # fmt: skip
"""Prefixes of the names of schedulers that describe no variance-preserving diffusion with betas."""


def check_scheduler(folder: Path) -> None:
    """Refuse a noise schedule that is not one of denoising diffusion, or whose values are invalid.

    Raises:
        FileNotFoundError: There is no scheduler configuration.
        ValueError: The schedule is of another kind, or a value is invalid.
    """
    try:
        config = read_json(folder / "scheduler" / "scheduler_config.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"The noise schedule of a model is in scheduler/scheduler_config.json; {error} Copy it from the same model."
        ) from error
    name, prediction = str(config.get("_class_name", "")), config.get("prediction_type", "epsilon")
    if "FlowMatch" in name or config.get("use_flow_sigmas") or prediction == "flow_prediction":
        raise ValueError(f"{WANTED_MODEL}; the scheduler of {folder} ({name}) is of flow matching. {OTHER_BASE}.")
    if name.startswith(_OTHER_SCHEDULES):
        raise ValueError(f"{WANTED_MODEL}; the scheduler of {folder} ({name}) is of another kind. {OTHER_BASE}.")
    _check_one_of(folder, "prediction_type", prediction, PREDICTION_TYPES)
    steps = config.get("num_train_timesteps", 1000)
    _check_whole(folder, "num_train_timesteps", steps, 1, 1_000_000)
    _check_whole(folder, "steps_offset", config.get("steps_offset", 0), 0, steps - 1)
    _check_betas(folder, config, steps)


def _check_betas(folder: Path, config: Mapping[str, Any], steps: int) -> None:
    trained = config.get("trained_betas")
    if trained is not None:
        if (
            not isinstance(trained, list)
            or len(trained) != steps
            or not all(_is_number(beta, 0, 1) for beta in trained)
        ):
            _refuse(folder, "trained_betas", f"{steps} numbers from 0 to 1, one a timestep", "other values")
        return
    _check_one_of(folder, "beta_schedule", config.get("beta_schedule"), BETA_SCHEDULES)
    if config["beta_schedule"] == "squaredcos_cap_v2":
        return
    start, end = config.get("beta_start"), config.get("beta_end")
    if not (_is_number(start, 0, 1) and _is_number(end, 0, 1) and 0 < start <= end < 1):  # type: ignore[operator]
        _refuse(folder, "beta_start and beta_end", "numbers between 0 and 1, the first the smaller one",
                f"{start!r} and {end!r}")  # fmt: skip


def _check_one_of(folder: Path, name: str, value: Any, known: Iterable[str]) -> None:
    if value not in (*known,):
        _refuse(folder, name, f"one of {', '.join(known)}", repr(value))


def _check_whole(folder: Path, name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        _refuse(folder, name, f"a whole number from {least} to {most}", repr(value))


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _refuse(folder: Path, name: str, wanted: str, came: str) -> None:
    raise ValueError(
        f"In a scheduler, {name} is {wanted}; the scheduler of {folder} says {came[:200]}. Correct "
        "scheduler/scheduler_config.json, or copy it from the model."
    )


def check_tokenizer(folder: Path, text_values: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that is absent, or whose tokens the text encoder does not know.

    Raises:
        FileNotFoundError: There is no tokenizer.
        ValueError: It does not fit the text encoder.
    """
    place = folder / "tokenizer"
    whole, parts = place / "tokenizer.json", (place / "vocab.json", place / "merges.txt")
    if not whole.is_file() and not all(path.is_file() for path in parts):
        raise FileNotFoundError(
            f"A model has its tokenizer in tokenizer/ (tokenizer.json, or vocab.json and merges.txt); {place} has not. "
            "Copy the folder tokenizer/ from the same model."
        )
    config = optional_json(place / "tokenizer_config.json")
    positions, known = text_values["max_position_embeddings"], text_values["vocab_size"]
    length = config.get("model_max_length")
    if type(length) is not int or not 0 < length <= positions:
        raise ValueError(
            f"The configuration of a tokenizer limits its tokens to those of the text encoder; "
            f"{place / 'tokenizer_config.json'} has "
            f'model_max_length {length}. Write "model_max_length": {positions} into it.'
        )
    vocabulary = read_json(whole)["model"]["vocab"] if whole.is_file() else read_json(parts[0])
    tokens = max([len(vocabulary), *(number + 1 for number in added_tokens(place).values())])
    if tokens > known:
        raise ValueError(
            f"Tokenizer and text encoder have one vocabulary; in {folder} they have {tokens} and {known} tokens. Take "
            "both from one model; tokens that were added to a tokenizer need a text encoder that knows them."
        )


def optional_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}


def added_tokens(place: Path) -> dict[str, int]:
    """Map the tokens that a tokenizer has beside its vocabulary to their numbers."""
    listed = optional_json(place / "tokenizer.json").get("added_tokens") or []
    decoder = optional_json(place / "tokenizer_config.json").get("added_tokens_decoder") or {}
    return {
        **optional_json(place / "added_tokens.json"),
        **{token["content"]: int(number) for number, token in decoder.items()},
        **{token["content"]: token["id"] for token in listed},
    }


def check_values(folder: Path, vae: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError for values of UNet, autoencoder and text encoder from which no module can be built.

    Args:
        folder: The model folder.
        vae: The folder of the autoencoder.
        configs: The configuration of every part.
    """
    quantized = next((part for part, config in configs.items() if config.get("quantization_config")), None)
    if quantized:
        raise ValueError(
            f"Weights are float16, bfloat16 or float32; the {quantized} of {folder} is quantized (quantization_config "
            "in its config.json). Take the model without quantization."
        )
    unet = with_defaults(configs["unet"], UNET_DEFAULTS)
    check_groups(folder / "unet", unet)
    if unet["act_fn"] not in ACTIVATIONS:
        refuse_value(folder / "unet", f"act_fn is one of {', '.join(ACTIVATIONS)}", unet["act_fn"])
    check_vae(vae, configs["vae"])
    heads = unet["num_attention_heads"] or unet["attention_head_dim"]
    heads = heads if isinstance(heads, list) else [heads] * len(unet["block_out_channels"])
    if any(count < 1 or width % count for width, count in zip(unet["block_out_channels"], heads, strict=False)):
        refuse_value(folder / "unet", f"attention_head_dim divides the widths {unet['block_out_channels']}", heads)
    text = text_config(configs["text_encoder"])
    if text["hidden_size"] % text["num_attention_heads"]:
        refuse_value(folder / "text_encoder", f"num_attention_heads divides hidden_size {text['hidden_size']}",
                     text["num_attention_heads"])  # fmt: skip
    if text["hidden_act"] not in TEXT_ACTIVATIONS:
        refuse_value(folder / "text_encoder", f"hidden_act is one of {', '.join(TEXT_ACTIVATIONS)}", text["hidden_act"])
