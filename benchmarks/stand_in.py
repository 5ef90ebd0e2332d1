"""A model of known cost in place of UniCon, and inputs of any length for it."""

from __future__ import annotations

import io
import os
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MATRIX = np.random.default_rng(0).standard_normal((96, 96)).astype(np.float32)
TEMPLATES = 16
"""Different pictures in an input; they repeat under other keys."""


@dataclass(frozen=True, kw_only=True)
class DepthKind:
    """What a task asks of a kind of condition; `unicon.conditions` would bring torch into every actor."""

    def encode(self, values: np.ndarray) -> Image.Image:
        """Map (H, W) in [0, 1] -> 16-bit picture."""
        levels = values * 65535
        return Image.fromarray(np.rint(levels, out=levels).astype(np.uint16))


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """Description and model in one: every sample costs the same."""

    seconds: float = 0.0
    """Asleep, for each sample: as a model on another device, which leaves the CPU alone."""
    products: int = 0
    """Matrix products for each sample: as a model on this CPU."""
    log: str | None = None
    """Folder that receives a file of every process, with the times of its calls: see `read_log`."""

    def placed(self, device: str | None, actors_per_node: int) -> StandIn:
        """Runs anywhere."""
        return self

    def build(self) -> StandIn:
        """Nothing to load."""
        return self

    def adapter_kind(self, adapter: str) -> DepthKind:
        """Depth, whatever the adapter."""
        return DepthKind()

    def working_size(self, size_px: tuple[int, int], *, resolution_px: int | None = None) -> tuple[int, int]:
        """One size for all."""
        return 512, 512

    def estimate(self, images: list[Image.Image], condition: str, **options: Any) -> list[np.ndarray]:
        """The brightness of every picture, at the stated cost."""
        began = time.time()
        time.sleep(self.seconds * len(images))
        for _ in range(self.products * len(images)):
            np.matmul(MATRIX, MATRIX)
        if self.log is not None:
            with Path(self.log, str(os.getpid())).open("a") as file:
                print(began, time.time(), file=file)
        return [np.asarray(image.convert("L"), np.float32) / 255 for image in images]


def read_log(folder: Path) -> list[list[tuple[float, float]]]:
    """Of every process: beginning and end of its calls, in seconds since the epoch, in their order."""
    lines = [path.read_text().splitlines() for path in sorted(folder.iterdir())]
    return [[(float(began), float(ended)) for began, ended in map(str.split, calls)] for calls in lines]


def products_for(seconds: float) -> int:
    """How many matrix products take about this long here and now."""
    count = 500
    began = time.perf_counter()
    for _ in range(count):
        np.matmul(MATRIX, MATRIX)
    return max(1, round(seconds * count / (time.perf_counter() - began)))


def write_shards(folder: Path, shards: int, samples: int, size_px: int) -> Path:
    """Tars of `samples` JPEG pictures each; keys are unique within the input."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [_picture(number, size_px) for number in range(TEMPLATES)]
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(samples):
                info = tarfile.TarInfo(f"{shard:05d}-{number:06d}.jpg")
                content = pictures[number % TEMPLATES]
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def _picture(seed: int, size_px: int) -> bytes:
    """An encoded picture of smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((size_px, size_px), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()
