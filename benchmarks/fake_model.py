"""A fake model of known cost in place of UniCon, and inputs of any length for it."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MATRIX = np.random.default_rng(0).standard_normal((96, 96)).astype(np.float32)
TEMPLATES = 16
"""Number of different images in an input, which repeat under other keys."""


@dataclass(frozen=True, kw_only=True)
class DepthKind:
    """A minimal condition kind; `unicon.conditions` would import torch in every actor."""

    def encode(self, values: np.ndarray) -> Image.Image:
        """Encode a map (H, W) in [0, 1] as a 16-bit image."""
        levels = values * 65535
        return Image.fromarray(np.rint(levels, out=levels).astype(np.uint16))


@dataclass(frozen=True, kw_only=True)
class FakeModel:
    """Model description and model in one, with the same cost for every sample."""

    seconds: float = 0.0
    """Seconds to sleep per sample, like a model on another device that leaves the CPU idle."""
    products: int = 0
    """Matrix products per sample, like a model on this CPU."""
    log: str | None = None
    """Folder for a file per process with the times of its calls; see `read_log`."""
    run: Callable[[Callable[[], Any]], Any] | None = None
    """See `unicon.UniCon.in_turns`."""

    def with_device(self, device: str | None, actors_per_node: int) -> FakeModel:
        """Return the same model, which runs on any device."""
        return self

    def with_work(self, rows: int | None) -> FakeModel:
        """Return the same model, which is not compiled."""
        return self

    def build(self) -> FakeModel:
        """Return the model; there is nothing to load."""
        return self

    def in_turns(self, run: Callable[[Callable[[], Any]], Any]) -> FakeModel:
        """Return the model for callers in several threads, as `unicon.UniCon.in_turns` does."""
        return replace(self, run=run)

    def adapter_kind(self, adapter: str) -> DepthKind:
        """Return the depth kind for every adapter."""
        return DepthKind()

    def working_size(self, size_px: tuple[int, int], *, resolution_px: int | None = None) -> tuple[int, int]:
        """Return the same size for all images."""
        return 512, 512

    def estimate(self, images: list[Image.Image], condition: str, **options: Any) -> list[np.ndarray]:
        """Return the brightness of every image, at the configured cost."""
        call = partial(self._use_device, len(images))
        call() if self.run is None else self.run(call)
        return [np.asarray(image.convert("L"), np.float32) / 255 for image in images]

    def _use_device(self, rows: int) -> None:
        began = time.time()
        time.sleep(self.seconds * rows)
        for _ in range(self.products * rows):
            np.matmul(MATRIX, MATRIX)
        if self.log is not None:
            with Path(self.log, str(os.getpid())).open("a") as file:
                print(began, time.time(), file=file)


def read_log(folder: Path) -> list[list[tuple[float, float]]]:
    """Return the start and end of the calls of each process, in order, in seconds since the epoch."""
    lines = [path.read_text().splitlines() for path in sorted(folder.iterdir())]
    return [[(float(began), float(ended)) for began, ended in map(str.split, calls)] for calls in lines]


def products_for(seconds: float) -> int:
    """Return how many matrix products take about this long on this machine."""
    count = 500
    began = time.perf_counter()
    for _ in range(count):
        np.matmul(MATRIX, MATRIX)
    return max(1, round(seconds * count / (time.perf_counter() - began)))


def write_shards(folder: Path, shards: int, samples: int, size_px: int) -> Path:
    """Write tars of `samples` JPEG images each, with keys that are unique within the input."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [encoded_image(number, size_px) for number in range(TEMPLATES)]
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(samples):
                info = tarfile.TarInfo(f"{shard:05d}-{number:06d}.jpg")
                content = images[number % TEMPLATES]
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def encoded_image(seed: int, size_px: int) -> bytes:
    """Return an encoded image of smooth random colors."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((size_px, size_px), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()
