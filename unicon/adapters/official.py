"""Reading and writing the official adapter layout, that of the adapters released with arXiv 2410.11439.

    FOLDER/xy_lora/pytorch_lora_weights.safetensors    LoRA of the image role      (diffusers LoRA format)
    FOLDER/yx_lora/...                                 LoRA of the condition role
    FOLDER/y_lora/...                                  condition adapter; absent for id and appearance
    FOLDER/model.pth                                   pickled dict of tensors: ...conv1n.weight are the output
                                                       projections; its LoRA entries repeat the folders

LoRA alpha is equal to the rank. Only this module and `unicon.files.official` know the official key names.

A conversion needs no weights of the base model, only its shape: see `unet_without_weights`.

Tested in tests/unicon/adapters/test_checkpoint.py.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from unicon.adapters.checkpoint import install_adapter
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import adapter_config, named_adapter_parameters
from unicon.files.adapters import LORA_FILE, LORA_FOLDERS, PICKLE_FILE
from unicon.files.folder import EMBEDDED_NAMES, find_folder
from unicon.files.headers import read_json
from unicon.files.hub import fetch_files, parse_hub_id
from unicon.files.official import check_official_files, our_key

SD15 = "sd15"
SD15_SHAPE: Mapping[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
"""Where the UNet of Stable Diffusion 1.x, the base of the official adapters, differs from diffusers' default UNet."""
_KEY = re.compile(r"(?P<block>.+)\.(?P<attention>attn[12])\.(?P<layer>.+)\.lora_(?P<half>[AB])\.(?P<kind>\w+)\.weight")


def official_folder_key(key: str) -> tuple[str, str]:
    """Convert a LoRA key of this project into (folder, key in its safetensors file)."""
    parts = _match(key)
    direction = "down" if parts["half"] == "A" else "up"
    folder = LORA_FOLDERS[parts["kind"]]
    return folder, f"unet.{parts['block']}.{_module(parts)}.{parts['layer']}.lora.{direction}.weight"


def official_parameter_key(key: str) -> str:
    """Convert a key of this project into the parameter name in `model.pth`."""
    if key.endswith(".attn1.joint_out.weight"):
        return key.replace(".attn1.joint_out.weight", ".conv1n.weight")
    parts = _match(key)
    folder = LORA_FOLDERS[parts["kind"]]
    return f"{parts['block']}.{_module(parts)}.{parts['layer']}.lora_{parts['half']}.{folder}.weight"


def _match(key: str) -> Mapping[str, str]:
    match = _KEY.fullmatch(key)
    assert match is not None, key
    return match.groupdict()


def _module(parts: Mapping[str, str]) -> str:
    return parts["attention"] if parts["kind"] == "condition_adapter" else "attn1n"


ANNOTATORS = {"depth": "depth-anything-v2", "edge": "hed", "pose": "openpose"}
"""Annotators that the released code uses for the conditions of the official adapters. Its edges are soft."""


def read_official(folder: str | Path, name: str) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """Read an official adapter: (configuration derived from the tensors, tensors by this project's names).

    Raises:
        FileNotFoundError: A part is missing.
        ValueError: Keys are unknown, there is no output projection, the LoRA entries of the pickle differ from the
            folders, or the ranks differ.
    """
    folder = Path(folder)
    tensors = _read_loras(folder)
    ranks = {tensor.shape[0] for key, tensor in tensors.items() if ".lora_A." in key}
    if len(ranks) != 1:
        raise ValueError(
            f"All LoRAs of an official adapter have one rank; {folder} has {sorted(ranks)}. Convert it again."
        )
    pickled = _read_pickle(folder / PICKLE_FILE, tensors)
    widths = {key: tensor.shape[0] for key, tensor in pickled.items()}
    fused = all(width == 2 * _channels(tensors, key) for key, width in widths.items())
    config = AdapterConfig(
        name=name,
        rank=ranks.pop(),
        projection="fused" if fused else "separate",
        condition_adapter=(folder / LORA_FOLDERS["condition_adapter"]).is_dir(),
        annotator=ANNOTATORS.get(name, ""),
    )
    return config, tensors | pickled


def _read_loras(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in check_official_files(folder):
        tensors |= {our_key(path.parent.name, key): tensor for key, tensor in load_file(path).items()}
    return tensors


def _read_pickle(path: Path, loras: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The output projections of `model.pth`, after comparing its LoRA entries with those of the folders."""
    try:
        entries: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{PICKLE_FILE} is a pickled dict of tensors and nothing else; {path} cannot be read "
            f"({str(error).splitlines()[0]}). Get it again."
        ) from error
    if not isinstance(entries, dict):
        raise ValueError(f"{PICKLE_FILE} is a pickled dict of tensors; {path} holds a {type(entries).__name__}. "
                         "Take the file of the same training.")  # fmt: skip
    expected = {official_parameter_key(key): tensor for key, tensor in loras.items()}
    projections: dict[str, Tensor] = {}
    for key, tensor in entries.items():
        if key.endswith(".conv1n.weight"):
            projections[key.removesuffix(".conv1n.weight") + ".attn1.joint_out.weight"] = tensor.flatten(1)
        elif key not in expected or not _agree(expected[key], tensor):
            raise ValueError(
                f"{PICKLE_FILE} holds output projections (...conv1n.weight) and repeats the LoRA folders; its entry "
                f"{key!r} is neither, or differs from its folder. Take files of the same training."
            )
    if not projections:
        raise ValueError(f"{PICKLE_FILE} holds output projections (...conv1n.weight); {path} has none.")
    return projections


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors are equal, up to the rounding of the one with fewer bits."""
    narrow = min((ours.dtype, theirs.dtype), key=lambda dtype: dtype.itemsize)
    return torch.equal(ours.to(narrow), theirs.to(narrow))


def _channels(loras: Mapping[str, Tensor], joint_out_key: str) -> int:
    key = joint_out_key.replace("joint_out.weight", "to_q.lora_A.image.weight")
    if key not in loras:
        raise ValueError(
            f"Every output projection belongs to a block with LoRA; {joint_out_key} has none. Take files of one run."
        )
    return loras[key].shape[1]


def load_official(unet: UNet2DConditionModel, folder: str | Path, *, name: str) -> AdapterConfig:
    """Add an official adapter to the UNet, in place, under `name`, which is also its kind of condition.

    Raises:
        FileNotFoundError: As for `read_official`.
        ValueError: As for `read_official`; or the adapter does not fit the UNet, which is then unchanged.
    """
    config, tensors = read_official(folder, name)
    return install_adapter(unet, config, tensors, str(folder))


def save_official(
    unet: UNet2DConditionModel, name: str, folder: str | Path, *, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write one adapter of the UNet in the official layout.

    Args:
        unet: The UNet that has the adapter.
        name: Name of the adapter.
        folder: The folder to write.
        tensors: Values that replace those in the UNet, under the same names.

    Raises:
        ValueError: The adapter's alpha is not its rank.
    """
    config = adapter_config(unet, name)
    if config.alpha != config.rank:
        raise ValueError(
            f"In the official layout alpha is the rank; {name!r} has alpha {config.alpha}, rank {config.rank}. "
            "Save it with unicon.adapters.checkpoint.save_adapter."
        )
    folder = Path(folder)
    values: Mapping[str, Tensor] = named_adapter_parameters(unet, name) if tensors is None else tensors
    tensors = {key: value.detach().contiguous().cpu() for key, value in values.items()}
    by_folder: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if ".lora_" in key:
            lora_folder, lora_key = official_folder_key(key)
            by_folder.setdefault(lora_folder, {})[lora_key] = tensor
    for lora_folder, contents in by_folder.items():
        (folder / lora_folder).mkdir(parents=True, exist_ok=True)
        save_file(contents, folder / lora_folder / LORA_FILE)
    torch.save({official_parameter_key(key): tensor for key, tensor in tensors.items()}, folder / PICKLE_FILE)


def unet_without_weights(base: str | Path | Mapping[str, Any] = SD15) -> UNet2DConditionModel:
    """Build the UNet of a model on torch's meta device: it has names and shapes, but no values and no memory.

    Args:
        base: "sd15", an embedded name, a folder, a hub id (only its configuration is fetched), or configuration values.

    Raises:
        FileNotFoundError: There is no such model.
    """
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(base if isinstance(base, Mapping) else _unet_config(base))  # type: ignore[return-value]


def _unet_config(base: str | Path) -> Mapping[str, Any]:
    if str(base) == SD15:
        return SD15_SHAPE
    if str(base) in EMBEDDED_NAMES or Path(base).is_dir():
        return read_json(find_folder(base) / "unet" / "config.json")
    name = parse_hub_id(str(base))
    if name is None or name.inside:
        raise FileNotFoundError(
            f"A base is {SD15}, {', '.join(EMBEDDED_NAMES)}, a model folder, or a hub id like owner/name; got "
            f"{str(base)!r}. Correct the path."
        )
    return read_json(fetch_files(name, ["unet/config.json"], "model") / "unet" / "config.json")
