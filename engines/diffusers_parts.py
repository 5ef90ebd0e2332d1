# diffusers declares its pipelines' arguments too widely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Loading pipelines of diffusers strictly: weights in safetensors that are exactly those of their configurations.

Tested in tests/engines/test_marigold.py and tests/engines/test_controlnet.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

from engines.interfaces import Target
from unicon.files.headers import read_json
from unicon.loading import load_part


def stable_diffusion_parts(folder: Path, target: Target) -> dict[str, Any]:
    """Return the networks and the tokenizer of a Stable Diffusion folder, on the target's device."""
    dtype = getattr(torch, target.dtype)
    parts: dict[str, Any] = {
        part: load_part(folder, part, target.device, dtype) for part in ("unet", "vae", "text_encoder")
    }
    return {**parts, "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer")}


def load_pipeline(classes: Sequence[Any], target: Target) -> Any:
    """Load the pipeline in the folder of a target, which is of one of the classes, without its progress bar.

    Raises:
        ValueError: A part has other weights than its configuration says.
    """
    folder = target.folder
    assert folder is not None, "the engine has weights"
    index = read_json(folder / "model_index.json")
    chosen = next(each for each in classes if each.__name__ == index["_class_name"])
    pipeline = chosen.from_pretrained(folder, local_files_only=True, **stable_diffusion_parts(folder, target))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
