"""The depth model of `unicon` behind a light description, and what can be known of it without loading it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.errors import SettingError
from unicon.folder import estimation_steps, find_adapters, find_folder, fingerprint, weight_files


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model made a row."""

    model: str
    adapter: str
    num_inference_steps: int
    """What the adapter recommends."""
    weights_sha256: str
    """Over all files of weights in use."""


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
    try:
        folder = find_folder(model)
        adapters = find_adapters(folder, None if adapter is None else {"depth": adapter})
    except (FileNotFoundError, ValueError) as error:
        option = "--model" if adapter is None else "--model or --adapter"
        raise SettingError(f"{option}: {error}") from error
    if "depth" not in adapters:
        raise SettingError(
            f"--model {model!r} has the adapters {sorted(adapters)} and none called depth. Use --adapter."
        )
    return ModelIdentity(
        model=Path(model).resolve().name if Path(model).is_dir() else model,
        adapter=adapters["depth"].stem,
        num_inference_steps=estimation_steps(adapters["depth"]),
        weights_sha256=fingerprint(weight_files(folder, [adapters["depth"]])),
    )
