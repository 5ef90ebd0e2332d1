"""The header of an adapter file in this project's format: the only place that parses it.

Metadata of the safetensors file: `format` is "unicon-adapter-1", `config` holds the fields of
`unicon.adapters.config.AdapterConfig` as JSON, and `unet` holds the shape of the base UNet as JSON.

Tested in tests/unicon/files/test_adapter_inspection.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unicon.files.adapters import PICKLE_FILE
from unicon.files.foreign import WANTED_ADAPTER, foreign_tensors
from unicon.files.headers import Shapes, read_header

FORMAT = "unicon-adapter-1"
"""Value of `format` in the metadata of an adapter file."""
CONFIG_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "kind": lambda value: isinstance(value, str),
    "rank": lambda value: type(value) is int and value >= 1,
    "alpha": lambda value: isinstance(value, int | float) and 0 <= value < math.inf,
    "projection": lambda value: value in ("fused", "separate"),
    "condition_adapter": lambda value: isinstance(value, bool),
    "trigger": lambda value: value is None or isinstance(value, str),
    "estimation_steps": lambda value: type(value) is int and 1 <= value <= 1000,
    "estimation_views": lambda value: value in (1, 2, 4),
    "single_step": lambda value: isinstance(value, bool),
    "annotator": lambda value: isinstance(value, str),
}
"""Fields of `AdapterConfig` (a test compares them) -> whether a value is possible."""


class AdapterHeader(NamedTuple):
    """What an adapter file says about itself."""

    config: dict[str, Any]
    """Keyword arguments of `AdapterConfig`, checked."""
    base: dict[str, Any]
    """The configuration values of the base UNet that the adapter depends on."""
    shapes: Shapes
    """Shapes of its tensors by name."""


def read_adapter_header(path: Path) -> AdapterHeader:
    """Read the header of an adapter file, without its tensors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else, damaged, or of another version. The message says which, and what to do.
    """
    if path.name == PICKLE_FILE:
        raise ValueError(f"{WANTED_ADAPTER}; {path} is a part of one. Give its folder, {path.parent}.")
    header = read_header(path)
    if header.metadata.get("format") == FORMAT:
        config, base = (_read_object(header.metadata, name, path) for name in ("config", "unet"))
        return AdapterHeader(_checked(config, path), base, header.shapes)
    what, cure = foreign_tensors(header.shapes) or ("is none of them", "Correct the path")
    if "part of an official" in what:
        cure = f"Give the folder that holds xy_lora/, yx_lora/ and model.pth: {path.parent.parent}"
    said = header.metadata.get("format")
    raise ValueError(f"{WANTED_ADAPTER} (format {FORMAT!r} in the metadata); {path} {what}"
                     f"{f' (format {said!r})' if said not in (None, 'pt') else ''}. {cure}.")  # fmt: skip


def _read_object(metadata: Mapping[str, str], name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(metadata[name])
    except (KeyError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"The metadata of an adapter file holds its configuration and its base; {path} has no {name} there that "
            "can be read. Get the adapter again."
        )
    return value


def _checked(config: dict[str, Any], path: Path) -> dict[str, Any]:
    wrong = [name for name, value in config.items() if name not in CONFIG_VALUES or not CONFIG_VALUES[name](value)]
    if wrong or "name" not in config:
        name = wrong[0] if wrong else "name"
        raise ValueError(
            f"The metadata of an adapter file holds its configuration; that of {path} is damaged or of another version "
            f"({name} {str(config.get(name))[:99]!r}). Update this package, or get the adapter again."
        )
    return config
