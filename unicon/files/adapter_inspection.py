"""Whether an adapter can be loaded and fits a model, judged from headers, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unicon.condition_kinds import CONDITION_KINDS
from unicon.files.adapter_header import AdapterHeader, read_adapter_header
from unicon.files.adapters import LORA_FOLDERS, PICKLE_FILE
from unicon.files.headers import Shapes, check_weights
from unicon.files.inspection import ModelShape
from unicon.files.official import check_official_files, lora_shapes, pickled_projections
from unicon.files.shapes import UNET_DEFAULTS, UNET_SHAPE_KEYS, with_defaults


def check_adapter(path: Path, shape: ModelShape) -> None:
    """Refuse a file or folder that is no adapter, fits another base, or has weights that are not finite.

    Raises:
        FileNotFoundError: A part of an official adapter folder is absent.
        ValueError: Anything else is wrong.
    """
    if path.is_dir():
        _check_official(path, shape)
    else:
        header = read_adapter_header(path)
        _check_base(header, path, shape)
        _check_fits(expected_tensors(shape.unet, header.config), header.shapes, path)
        check_weights(path)


def _check_official(path: Path, shape: ModelShape) -> None:
    files = check_official_files(path)
    found = lora_shapes(files)
    ranks = sorted({sizes[0] for key, sizes in found.items() if ".lora_A." in key and sizes})
    condition_adapter = any(file.parent.name == LORA_FOLDERS["condition_adapter"] for file in files)
    config = {"rank": ranks[0] if ranks else 1, "condition_adapter": condition_adapter}
    expected = expected_tensors(shape.unet, config)
    projections = pickled_projections(path / PICKLE_FILE)
    # The shapes of the output projections, which tell fused from separate, are known only once the pickle is loaded.
    found |= {key: expected.get(key, ()) for key in projections}
    wrong = sorted(key for key in {*expected, *found} if key not in expected or expected[key] != found.get(key))
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"An adapter fits the UNet that it was trained on; {len(wrong)} tensors of {path} do not fit this model: "
            f"{key} is {found.get(key, 'absent')} instead of {expected.get(key, 'absent')}. The official adapters are "
            "for Stable Diffusion 1.5: give their base with --model, and a whole folder."
        )


def check_kind(kind: str, path: Path) -> None:
    """Raise ValueError for an adapter of an unknown kind of condition."""
    if kind not in CONDITION_KINDS:
        raise ValueError(
            f"The kinds of conditions are {', '.join(CONDITION_KINDS)}; the adapter {path} is of kind {kind[:99]!r}. "
            "Name it after its kind: --adapter KIND=PATH."
        )


def _check_base(header: AdapterHeader, path: Path, shape: ModelShape) -> None:
    values = with_defaults(shape.unet_config, UNET_DEFAULTS)
    ours = {key: values[key] for key in UNET_SHAPE_KEYS}
    other = {key: (header.base.get(key), ours[key]) for key in ours if header.base.get(key) != ours[key]}
    if other:
        raise ValueError(
            f"An adapter fits the UNet shape it was trained on; {path} differs in (its, this model's) {other}. "
            "Give the base model of the adapter with --model, or another adapter."
        )


def expected_tensors(unet: Shapes, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors, from the shapes of a UNet.

    `unicon.adapters.unet.adapter_shapes` gives the same for a loaded UNet.
    """
    rank = int(config.get("rank", 64))
    attentions: dict[str, tuple[str, ...]] = {"image": ("attn1",), "condition": ("attn1",)}
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
