"""LoRA files of other tools (kohya, diffusers, peft) for the base model: finding them, reading and checking their keys.

    kohya        lora_unet_BLOCK_attn1_to_q.lora_down.weight, .lora_up.weight, .alpha      lora_te_... likewise
    diffusers    unet.BLOCK.attn1.to_q.lora.down.weight                                    text_encoder.text_model....
    peft         base_model.model.BLOCK.attn1.to_q.lora_A.weight, also after unet. or text_encoder.

A layer's weight W becomes W + scale * alpha / rank * up @ down. Alpha defaults to the rank.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unicon.files.adapter_header import FORMAT
from unicon.files.adapters import LORA_FILE
from unicon.files.folder import Lora
from unicon.files.foreign import foreign_tensors
from unicon.files.headers import Header, Shapes, check_weights, read_header, read_json
from unicon.files.hub import expanded, fetch_files, is_there, parse_hub_id
from unicon.files.inspection import ModelShape

MAX_SCALE = 100
"""Largest scale of a LoRA, to either side of zero."""
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_HALF = re.compile(
    r"(?P<module>.+?)(?:\.(?P<half>lora_down|lora_up|lora_A|lora_B)(?:\.default)?|\.lora\.(?P<direction>down|up)"
    r"|\.lora_linear_layer\.(?P<linear>down|up)|_lora\.(?P<old>down|up))\.weight"
)
_PREFIXES = (
    ("lora_unet_", "unet"), ("lora_te1_", "text_encoder"), ("lora_te_", "text_encoder"), ("base_model.model.", ""),
    ("unet.", "unet"), ("text_encoder.", "text_encoder"),
)  # fmt: skip


class LoraLayer(NamedTuple):
    """A layer of the base model and the tensors of a LoRA file that change it."""

    part: str
    """unet or text_encoder."""
    module: str
    down: str
    """Key of the tensor (rank, inputs, ...)."""
    up: str
    """Key of the tensor (outputs, rank, ...)."""
    alpha: str | None
    """Key of a scalar; None where the file has none."""
    scaling: float
    """The value of alpha / rank where `alpha` is None."""
    rank: int


def find_lora(source: str | Path) -> Path:
    """Find the file of a LoRA.

    Args:
        source: A file; a folder with one; or OWNER/NAME or OWNER/NAME/FILE on the hub, optionally followed by
            @REVISION.

    Raises:
        FileNotFoundError: There is no such LoRA.
    """
    if not str(source).strip():
        raise ValueError("A LoRA is a .safetensors file; got an empty text. Correct the path.")
    path = expanded(source)
    if not is_there(path):
        name = None if isinstance(source, Path) else parse_hub_id(source)
        if name is None:
            raise FileNotFoundError(f"A LoRA is a .safetensors file; there is nothing at {str(source)[:200]!r}. "
                                    "Correct the path.")  # fmt: skip
        inside = [name.inside] if name.inside else [LORA_FILE, PEFT_FILE, PEFT_CONFIG]
        path = fetch_files(name, inside, "LoRA") / name.inside
    if path.is_file():
        return path
    names = [path / file for file in (LORA_FILE, PEFT_FILE) if (path / file).is_file()]
    others = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if names or len(others) == 1:
        return (names or others)[0]
    here = f", but {', '.join(file.name for file in others[:5])}. Name one" if others else ". Correct the path"
    raise FileNotFoundError(f"A LoRA is a .safetensors file; {path} has neither {LORA_FILE} nor {PEFT_FILE}{here}.")


Loras = str | Path | Mapping[str, float] | Iterable[str | Path | tuple[str | Path, float]]
"""LoRAs as given by callers: a path, paths, (path, scale) pairs, or path -> scale. Scales default to 1."""


def find_loras(loras: Loras) -> tuple[Lora, ...]:
    """The files and scales of LoRAs.

    Raises:
        FileNotFoundError: A LoRA is absent.
        ValueError: A scale is not a finite number, or the value is none of those that `Loras` allows.
    """
    loras = [loras] if isinstance(loras, str | Path) else loras
    given: Iterable[Any] = loras.items() if isinstance(loras, Mapping) else loras
    entries: list[Any] = [(entry, 1.0) if isinstance(entry, str | Path) else entry for entry in given]
    if not all(isinstance(entry, tuple) and len(entry) == 2 for entry in entries):
        raise ValueError(f"LoRAs are a path, paths, (path, scale) pairs, or path -> scale; got {str(loras)[:200]}.")
    return tuple(Lora(find_lora(source), check_scale(scale)) for source, scale in entries)


def check_scale(scale: float) -> float:
    """Return the scale as a float. Raises ValueError unless it is a finite number within `MAX_SCALE`."""
    is_number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not is_number or not -MAX_SCALE <= scale <= MAX_SCALE:  # written so that NaN is refused
        raise ValueError(
            f"The scale of a LoRA is a finite number from -{MAX_SCALE} to {MAX_SCALE}, 1 as it was trained; got "
            f"{scale!r}. Try 0.5 to 1."
        )
    return float(scale)


def lora_layers(path: Path, shape: ModelShape) -> list[LoraLayer]:
    """The layers that a LoRA file changes, sorted.

    Raises:
        ValueError: The file is no LoRA, belongs to another base, is of an unsupported kind, or is damaged.
    """
    header = read_header(path)
    _check_kind(path, header)
    names = {"unet": _by_name(shape.unet), "text_encoder": _by_name(shape.text_encoder)}
    halves: dict[tuple[str, str], dict[str, str]] = {}
    unknown: list[str] = []
    for key in header.shapes:
        target = _target(key, names)
        if target is None:
            unknown.append(key)
        else:
            part, module, half = target
            halves.setdefault((part, module), {})[half] = key
    if unknown:
        raise ValueError(
            f"A LoRA changes layers of its base; {len(unknown)} of the {len(header.shapes)} tensors of {path} match no "
            f"layer of this model: {', '.join(unknown[:3])}. It is of another base, or of a kind that is not "
            "supported. LoRAs of the UNet and the text encoder of Stable Diffusion 1.x and 2.x are supported."
        )
    check_weights(path)
    weights = {"unet": shape.unet, "text_encoder": shape.text_encoder}
    try:
        config = _peft_config(path, header)
        return [
            _layer(path, header.shapes, part, module, found, weights[part][f"{module}.weight"], config.get(part, {}))
            for (part, module), found in sorted(halves.items())
        ]
    except (json.JSONDecodeError, AttributeError, TypeError, re.error) as error:
        raise ValueError(
            f"What {path} records of its LoRA ({PEFT_CONFIG} beside it, or its metadata) cannot be read: {error}. Get "
            "it again."
        ) from error


def _check_kind(path: Path, header: Header) -> None:
    if header.metadata.get("format") == FORMAT:
        raise ValueError(f"A LoRA is for the base model; {path} is a UniCon adapter. Give it with --adapter.")
    what, _ = foreign_tensors(header.shapes) or ("holds none", "")
    if "LoRA" not in what or "transformer" in what:
        raise ValueError(f"A LoRA file holds pairs of small matrices; {path} {what}. Check the path.")
    dora = [key for key in header.shapes if "dora_scale" in key or "magnitude_vector" in key]
    if dora:
        raise ValueError(f"DoRA is not supported; {path} has {dora[0]}. Take a plain LoRA.")


def _by_name(shapes: Shapes) -> dict[str, str]:
    """Map every spelling of a module that has a weight matrix to the module."""
    modules = [key.removesuffix(".weight") for key, shape in shapes.items() if key.endswith(".weight")
               and len(shape) > 1]  # fmt: skip
    spelled: dict[str, str] = {}
    for module in modules:
        for name in (module, f"text_model.{module}"):
            spelled[name] = spelled[name.replace(".", "_")] = module
    return spelled


def _target(key: str, names: Mapping[str, Mapping[str, str]]) -> tuple[str, str, str] | None:
    """(part, module, "down", "up" or "alpha") of a tensor; None where its key names no layer of the model."""
    match = _HALF.fullmatch(key)
    if match is None and not key.endswith(".alpha"):
        return None
    name = match["module"] if match else key.removesuffix(".alpha")
    words = match and (match["half"] or match["direction"] or match["linear"] or match["old"])
    half = "alpha" if not words else "down" if words in ("lora_down", "lora_A", "down") else "up"
    parts = ["unet", "text_encoder"]
    for prefix, part in _PREFIXES:  # the prefix of peft comes before the others in a name
        if name.startswith(prefix):
            name, parts = name.removeprefix(prefix), [part] if part else parts
    name = re.sub(r"\.processor\.(to_\w+)$", r".\1", name)
    for spelling in (name, f"{name}.0"):  # to_out in old files of diffusers
        for part in parts:
            if spelling in names[part]:
                return part, names[part][spelling], half
    return None


def _layer(
    path: Path, shapes: Shapes, part: str, module: str, found: Mapping[str, str], weight: Sequence[int],
    config: Mapping[str, Any],
) -> LoraLayer:  # fmt: skip
    if "down" not in found or "up" not in found:
        raise ValueError(
            f"A LoRA has two matrices for each layer; {path} has for {part} {module} only "
            f"{', '.join(sorted(found.values()))}. The file is incomplete: get it again."
        )
    down, up = shapes[found["down"]], shapes[found["up"]]
    rank = down[0] if down else 0
    kernel = tuple(down[2:]) or (1, 1)
    fits = rank >= 1 and up[:2] == (weight[0], rank) and tuple(down[:2]) == (rank, weight[1])
    fits = fits and math.prod(shapes[found["alpha"]] if "alpha" in found else ()) == 1
    if not fits or kernel != (tuple(weight[2:]) or (1, 1)) or set(up[2:]) - {1}:
        raise ValueError(
            f"A LoRA fits the base that it was trained on; {path} has for {part} {module} matrices of {down} and {up}, "
            f"and the layer has {tuple(weight)}. Give the base of the LoRA with --model, or another LoRA."
        )
    return LoraLayer(part, module, found["down"], found["up"], found.get("alpha"), _scaling(module, rank, config), rank)


def _scaling(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """Alpha / rank as recorded by peft, for a layer whose alpha is not in the file."""
    patterns = config.get("alpha_pattern") or {}
    of_module = (value for name, value in patterns.items() if re.fullmatch(rf"(.*\.)?{name}", module))
    alpha = next(of_module, config.get("lora_alpha") or rank)
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise TypeError(f"alpha {alpha!r}")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _peft_config(path: Path, header: Header) -> dict[str, dict[str, Any]]:
    """The configuration recorded by peft (in a file beside it) or diffusers (in the metadata), by part of the model."""
    found: dict[str, dict[str, Any]] = {}
    if path.name == PEFT_FILE and (path.parent / PEFT_CONFIG).is_file():
        config = read_json(path.parent / PEFT_CONFIG)
        found = {"unet": config, "text_encoder": config}
    else:
        for name, value in json.loads(header.metadata.get("lora_adapter_metadata", "{}")).items():
            part, _, key = name.partition(".")
            found.setdefault(part, {})[key] = value
    if any(config.get("use_dora") for config in found.values()):
        raise ValueError(f"DoRA is not supported; {path} is one. Take a plain LoRA.")
    return found
