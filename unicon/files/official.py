"""Whether a folder is a complete adapter in the official layout, judged from headers, without torch.

Tested in tests/unicon/files/test_adapter_inspection.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unicon.files.adapters import LORA_FILE, LORA_FOLDERS, PICKLE_FILE, is_official
from unicon.files.foreign import LORA_CURE, WANTED_ADAPTER
from unicon.files.headers import check_floating, first_endless, read_header, read_json, what_is_wrong
from unicon.files.pickles import read_pickle_names

PROJECTION = ".conv1n.weight"
"""Suffix of the names of the output projections in the pickle."""


def check_official_files(path: Path) -> list[Path]:
    """Check an official adapter folder and return its LoRA files.

    Raises:
        FileNotFoundError: A part is absent.
        ValueError: The folder is something else or damaged.
    """
    if not is_official(path):
        raise ValueError(f"{WANTED_ADAPTER}; {path} {_other_folder(path)}.")
    _check_pickle(path / PICKLE_FILE)
    files = [path / folder / LORA_FILE for folder in LORA_FOLDERS.values()]
    files = [file for file in files if file.parent.is_dir() or file.parent.name != LORA_FOLDERS["condition_adapter"]]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"An official adapter has xy_lora/{LORA_FILE} and yx_lora/{LORA_FILE} (and y_lora for depth, edge and "
                f"pose); {file} is absent. Give the folder that contains {PICKLE_FILE}, complete."
            )
        check_floating(file, read_header(file))
        endless = first_endless(file)
        if endless:
            raise ValueError(f"Weights are finite numbers; {endless} of {file} is not. Get the adapter again.")
    return files


def _check_pickle(path: Path) -> None:
    """Refuse a pickle without output projections, and one that would run code. The pickle is not loaded."""
    what = what_is_wrong(path) or ""
    if what and "pickle" not in what:
        raise ValueError(f"{path} {what}.")
    names = read_pickle_names(path)
    if names.foreign:
        raise ValueError(
            f"{PICKLE_FILE} of an adapter is a pickled dict of tensors and nothing else; {path} would call "
            f"{', '.join(names.foreign[:3])}. Nothing of it was run. Check where it comes from."
        )
    if not any(text.endswith(PROJECTION) for text in names.texts):
        raise ValueError(
            f"{PICKLE_FILE} holds output projections (...{PROJECTION.lstrip('.')}); {path} has none. Take the file of "
            "the same training."
        )


def pickled_projections(path: Path) -> set[str]:
    """Names of the output projections in a pickle, as this project calls them."""
    texts = read_pickle_names(path).texts
    return {f"{text.removesuffix(PROJECTION)}.attn1.joint_out.weight" for text in texts if text.endswith(PROJECTION)}


def lora_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in LoRA files, by this project's names. Raises ValueError for keys of another layout."""
    return {our_key(file.parent.name, key): shape for file in files for key, shape in read_header(file).shapes.items()}


def our_key(folder: str, key: str) -> str:
    """Convert (folder, key in its safetensors file) into a LoRA key of this project.

    Raises:
        ValueError: The key belongs to another layout.
    """
    match = re.fullmatch(r"unet\.(.+)\.(attn1n|attn1|attn2)\.(.+)\.lora\.(down|up)\.weight", key)
    kind = {name: kind for kind, name in LORA_FOLDERS.items()}[folder]
    if match is None or (match[2] == "attn1n") != (kind != "condition_adapter"):
        raise ValueError(
            f"Official LoRA keys are unet.BLOCK.attnN.LAYER.lora.down|up.weight (attn1n in xy_lora and yx_lora); "
            f"{folder} holds {key!r}. This is no UniCon adapter of Stable Diffusion."
        )
    block, attention, layer, direction = match.groups()
    half = "A" if direction == "down" else "B"
    return f"{block}.{attention.removesuffix('n')}.{layer}.lora_{half}.{kind}.weight"


def _other_folder(path: Path) -> str:
    """Describe a folder without model.pth, as "what it is. cure"."""
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
