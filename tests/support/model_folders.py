"""Modified copies of a tiny model folder that resemble the folders of users."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.paths import CASES, GOLDEN

ADAPTERS = CASES / "adapters"
CHECKPOINTS = GOLDEN / "checkpoints"
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"

Change = Callable[[Path], Any]


def copied(tiny_folder: Path, tmp_path: Path, change: Change) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    change(folder)
    return folder


def config(part: str, **values: Any) -> Change:
    """Return a change that sets values in the configuration of a part; None removes a value."""
    file = {"scheduler": "scheduler/scheduler_config.json", "tokenizer": "tokenizer/tokenizer_config.json"}

    def change(folder: Path) -> None:
        path = folder / file.get(part, f"{part}/config.json")
        content = json.loads(path.read_text()) | values
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return change


def tensors(file: str, rename: Callable[[str], str | None]) -> Change:
    """Return a change that renames tensors; None drops a tensor."""

    def change(folder: Path) -> None:
        named = {rename(key): value for key, value in load_file(folder / file).items()}
        save_file({key: value for key, value in named.items() if key is not None}, folder / file)

    return change


def write(file: str, content: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content)


def cut(file: str) -> Change:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:5000])


def remove(*files: str) -> Change:
    def change(folder: Path) -> None:
        for file in files:
            shutil.rmtree(folder / file) if (folder / file).is_dir() else (folder / file).unlink()

    return change


def renamed(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


def dtype(file: str, kind: torch.dtype) -> Change:
    return lambda folder: save_file({key: value.to(kind) for key, value in load_file(folder / file).items()},
                                    folder / file)  # fmt: skip
