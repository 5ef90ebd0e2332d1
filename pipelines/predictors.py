"""The depth model of `unicon` behind a light description, and what can be known of it without loading it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.errors import SettingError

MINI = Path(__file__).resolve().parents[1] / "unicon" / "models" / "mini"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".json", ".txt")
"""Files of a model folder that decide its result: weights, configurations, vocabularies."""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model made a row."""

    model: str
    adapter: str
    weights_sha256: str
    """Over all weight and configuration files of model and adapter."""


@dataclass(frozen=True, kw_only=True)
class UniConDepth:
    """Description of a UniCon depth estimator; `build` loads it."""

    model: str
    """`mini`, a Stable Diffusion folder, or a hub id."""
    adapter: str | None = None
    """Depth adapter file or folder; None: the one in the model folder."""
    num_inference_steps: int
    guidance_scale: float
    device: str | None = None
    """None: the GPU of the actor if it has one, else the CPU."""
    cpu_threads: int | None = None

    def build(self) -> "UniConDepthPredictor":
        """Load the model on this process's device."""
        import torch

        from unicon import UniCon

        if self.cpu_threads is not None and not torch.cuda.is_available():
            torch.set_num_threads(self.cpu_threads)
        adapters = {"depth": self.adapter} if self.adapter is not None else None
        return UniConDepthPredictor(self, UniCon.from_pretrained(self.model, adapters=adapters, device=self.device))


class UniConDepthPredictor:
    """`unicon.UniCon` as the depth flow's predictor."""

    def __init__(self, description: UniConDepth, model: Any) -> None:
        self.description = description
        self.model = model

    def estimate(self, images: list[Image.Image], seeds: list[int]) -> list[np.ndarray]:
        """float32 (H, W) in [0, 1] of every picture, 0 far, 1 near."""
        return self.model.estimate(
            images,
            "depth",
            seeds=seeds,
            num_inference_steps=self.description.num_inference_steps,
            guidance_scale=self.description.guidance_scale,
        )

    def working_size(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """The size (width, height) the model works at."""
        return self.model.working_size(size_px)


def identify_model(model: str, adapter: str | None) -> ModelIdentity:
    """Find and hash model and adapter without loading them.

    Raises:
        SettingError: one of them is not there.
    """
    folder = model_folder(model)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in WEIGHT_SUFFIXES]
    parts = [(path.relative_to(folder).as_posix(), path) for path in paths]
    if adapter is not None:
        parts += _adapter_files(adapter)
    digest = hashlib.sha256()
    for name, path in parts:
        digest.update(f"{name}\n".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    name = folder.name if os.path.isdir(model) else model
    return ModelIdentity(model=name, adapter=_adapter_name(adapter), weights_sha256=digest.hexdigest())


def model_folder(model: str) -> Path:
    """The folder of `mini`, of a path, or of a hub id (downloaded if it is not in the cache).

    Raises:
        SettingError: there is none.
    """
    if model == "mini":
        return _checked_folder(MINI, "mini")
    if os.path.isdir(model):
        return _checked_folder(Path(model).resolve(), model)
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise SettingError(f"--model {model!r}: no such folder. Rule: `mini`, a Stable Diffusion folder, or a hub id.")
    return _checked_folder(_from_hub(model), model)


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in WEIGHT_SUFFIXES]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # offline, unknown, gated, misspelt: the hub's library has an exception for each
        raise SettingError(
            f"--model {model!r} is no folder here, and the hub gave no model of that name: {type(error).__name__}. "
            "Check the spelling, the network and HF_HUB_OFFLINE, or download it once and give its folder."
        ) from error


def _checked_folder(folder: Path, model: str) -> Path:
    if not (folder / "model_index.json").is_file():
        raise SettingError(
            f"--model {model!r}: {folder} has no model_index.json. Rule: a diffusers Stable Diffusion folder (with "
            "unet/, vae/, text_encoder/, tokenizer/)."
        )
    return folder


def _adapter_files(adapter: str) -> list[tuple[str, Path]]:
    path = Path(adapter)
    if path.is_dir():
        inside = [file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix in WEIGHT_SUFFIXES]
        if inside:
            return [(f"adapter/{file.relative_to(path).as_posix()}", file) for file in inside]
    if not path.is_file():
        raise SettingError(f"--adapter {adapter!r}: no such file, and no folder with weights. Give a depth adapter.")
    return [("adapter", path)]


def _adapter_name(adapter: str | None) -> str:
    return "depth" if adapter is None else Path(adapter).resolve().name
