"""The values in a model folder's configurations, scheduler and tokenizer that change results.

Weights have a hash of their own (`unicon.files.folder.weight_files`). Versions of libraries, names, default values,
settings of training and of other pipelines, and the formatting of files do not count.

Tested in tests/unicon/files/test_hashes.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unicon.files.autoencoders import vae_values
from unicon.files.config_values import added_tokens
from unicon.files.headers import read_json
from unicon.files.shapes import UNET_DEFAULTS, text_config, with_defaults

SCHEDULE_DEFAULTS: Mapping[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon", "rescale_betas_zero_snr": False, "steps_offset": 0,
}  # fmt: skip
"""Values of a scheduler that describe the model, with diffusers' defaults."""
_WITHOUT_EFFECT = ("dropout", "sample_size")
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def model_config(folder: Path, *, vae: Path | None = None, map_decoder: Path | None = None) -> dict[str, Any]:
    """The values of the scheduler, and a short hash of every other part, by part of the model.

    Args:
        folder: The model folder.
        vae: The folder of the autoencoder, by default the model's own.
        map_decoder: The folder of the small decoder if maps are decoded by it.

    Raises:
        OSError: A file is absent.
        ValueError: A file cannot be read.
    """
    unet = with_defaults(read_json(folder / "unet" / "config.json"), UNET_DEFAULTS)
    return {
        "scheduler": with_defaults(read_json(folder / "scheduler" / "scheduler_config.json"), SCHEDULE_DEFAULTS),
        "tokenizer": _hash(_tokenizer(folder / "tokenizer")),
        "unet": _hash({name: value for name, value in unet.items() if name not in _WITHOUT_EFFECT}),
        "native_size": unet["sample_size"],
        "vae": _hash(vae_values(read_json((vae or folder / "vae") / "config.json"))),
        "text_encoder": _hash(text_config(read_json(folder / "text_encoder" / "config.json"))),
        **({} if map_decoder is None else {"map_decoder": _hash(_decoder(read_json(map_decoder / "config.json")))}),
    }


def _decoder(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _tokenizer(place: Path) -> dict[str, Any]:
    """The values that CLIPTokenizer takes from its files. It has its own normalization and templates."""
    whole = place / "tokenizer.json"
    if whole.is_file():
        model = read_json(whole)["model"]
        vocabulary, merges = model["vocab"], model["merges"]
    else:
        vocabulary = read_json(place / "vocab.json")
        merges = (place / "merges.txt").read_text(encoding="utf-8").splitlines()
    config: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (place / name).is_file():
            config = {**read_json(place / name), **config}
    beside = {token: number for token, number in added_tokens(place).items() if token not in vocabulary}
    sides = {name: config[name] for name in ("padding_side", "truncation_side") if config.get(name, "right") != "right"}
    tokens = {name: config.get(name) for name in _SPECIAL_TOKENS}
    return {
        "vocabulary": vocabulary,
        "merges": [_merge(line) for line in merges if not str(line).startswith("#version") and line],
        "tokens": {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items()},
        "model_max_length": config.get("model_max_length"),
        **({"added": beside} if beside else {}),
        **sides,
    }


def _merge(line: str | list[str]) -> str:
    return line.strip() if isinstance(line, str) else " ".join(line)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
