"""Which weight files of a model folder are loaded, decided from file names alone.

Tested in tests/unicon/files/test_inspection.py and tests/unicon/files/test_hub.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from unicon.files.headers import read_json

WEIGHT_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""Parts of a model with weights -> stem of their file names."""
MAP_DECODER = "decoders/maps"
"""The folder of the small decoder of maps in a model folder. Its weights are named as those of an autoencoder."""
VARIANTS = ("", "fp16", "bf16")
"""Variants of the same weights in order of preference. Others, such as non_ema, come after them."""


def weights_to_load(part: str, names: Collection[str]) -> list[str]:
    """Choose the weight files of one part: a single variant, with its index where it is split into several files.

    The order of preference is that of diffusers (UNet, autoencoder) and transformers (text encoder), so that the files
    that are hashed are the files that are loaded.

    Args:
        part: A key of `WEIGHT_STEMS`.
        names: Names of the files in the part's folder.

    Returns:
        The chosen names; empty where there are no weights in safetensors.
    """
    stem = WEIGHT_STEMS[part]
    pattern = re.compile(
        rf"{stem}(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?(?:\.(?P<old>[\w-]+))?\.safetensors"
        r"(?P<index>\.index(?:\.(?P<of>[\w-]+))?\.json)?"
    )
    singles: dict[str, list[str]] = {}
    sharded: dict[str, list[str]] = {}
    for name in sorted(names):
        match = pattern.fullmatch(name)
        if match is not None:
            variant = match["variant"] or match["old"] or match["of"] or ""
            kind = sharded if match["index"] or re.search(r"-\d+-of-\d+", name) else singles
            kind.setdefault(variant, []).append(name)
    whole = {variant: files for variant, files in sharded.items() if any(name.endswith(".json") for name in files)}
    orders = [singles, whole] if part == "text_encoder" else [whole, singles]
    others = sorted({*singles, *whole} - {*VARIANTS}, key=lambda variant: ("non_ema" in variant, variant))
    for variant in (*VARIANTS, *others):
        for kind in orders:
            if variant in kind:
                return kind[variant]
    return []


def variant_of(files: Collection[str]) -> str | None:
    """The variant of files chosen by `weights_to_load`, in the form that diffusers and transformers take."""
    for name in files:
        match = re.search(
            r"\.([\w-]+?)(?:-\d+-of-\d+)?\.safetensors$|\.index\.([\w-]+)\.json$|-of-\d+\.([\w-]+)\.", name
        )
        found = match and next((group for group in match.groups() if group), None)
        if found:
            return found
    return None


def files_to_load(names: Collection[str]) -> set[str]:
    """Choose the files that a model is loaded from, among the paths of all files in its folder."""
    configs = rf"model_index\.json|(unet|vae|text_encoder|{MAP_DECODER})/config\.json"
    found = {name for name in names if re.fullmatch(configs, name)}
    found |= {
        name
        for name in names
        if re.fullmatch(r"(scheduler|tokenizer)/[^/]+\.(json|txt|model)|adapters/[^/]+\.safetensors", name)
    }
    for place, part in {**{part: part for part in WEIGHT_STEMS}, MAP_DECODER: "vae"}.items():
        inside = [name.removeprefix(f"{place}/") for name in names if name.startswith(f"{place}/")]
        found |= {f"{place}/{name}" for name in weights_to_load(part, inside)}
    return found


def part_files(place: Path, part: str) -> list[Path]:
    """The safetensors files of a part that are loaded, sorted; empty where there are none.

    Args:
        place: The part's own folder.
        part: A key of `WEIGHT_STEMS`.

    Raises:
        FileNotFoundError: A file that the index names does not exist.
        ValueError: The index cannot be read.
    """
    chosen = weights_to_load(part, [path.name for path in place.iterdir()] if place.is_dir() else [])
    index = next((name for name in chosen if name.endswith(".json")), None)
    if index is None:
        return [place / name for name in chosen]
    named = read_json(place / index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{place / index} is no index of weights: it has no weight_map. Get the folder again.")
    files = sorted({place / str(name) for name in named.values()})
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{place / index} names {len(files)} files; absent: {', '.join(absent[:3])}. Get the folder again."
        )
    return files
