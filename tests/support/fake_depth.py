"""A fake model for tests of the data plane: it returns brightness, with the row's seed in the lowest bits."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.stages.task import row_seed
from unicon.conditions import CONDITIONS

BROKEN_DEVICES: set[int] = set()
"""Process ids whose device has failed."""


@dataclass(frozen=True, kw_only=True)
class FakeDepth:
    """Model description and model in one, with the interface of `unicon.UniCon`."""

    delay_s: float = 0.0
    """Time that each image takes."""
    die_on_red: bool = False
    """Exit the process on an image whose first pixel is pure red."""
    hang_on_green: bool = False
    raise_on_blue: bool = False
    break_on_white: bool = False
    """Fail as a broken GPU does, from the first white image on for every image."""
    raises: str = ""
    """Message of the error that is raised for every image."""
    dies_twice_in: str = ""
    """Folder that counts deaths: the process exits in its first two calls, and no more after that."""
    die_loading: bool = False
    fail_to_load: bool = False
    refuses_seeds_of: tuple[str, ...] = ()
    """Keys (for run seed 0) whose image does not fit into memory."""
    run: Callable[[Callable[[], Any]], Any] | None = None
    """See `unicon.UniCon.in_turns`."""
    fails_while: str = ""
    """A file; while it exists, every third map (by seed) is not finite, which makes its sample fail."""

    def with_device(self, device: str | None, actors_per_node: int) -> "FakeDepth":
        return self

    def with_work(self, rows: int | None) -> "FakeDepth":
        return self

    def build(self) -> "FakeDepth":
        if self.die_loading:
            os._exit(1)
        if self.fail_to_load:
            raise RuntimeError("these weights are for another model")
        return self

    def in_turns(self, run: Callable[[Callable[[], Any]], Any]) -> "FakeDepth":
        return replace(self, run=run)

    def adapter_kind(self, adapter: str) -> Any:
        return CONDITIONS[adapter]

    def working_size(self, size_px: tuple[int, int], *, resolution_px: int | None = None) -> tuple[int, int]:
        return (96, 64) if size_px[0] > size_px[1] else (64, 96)

    def estimate(
        self,
        images: list[Image.Image],
        condition: str | tuple[str, ...],
        *,
        seeds: list[int],
        **options: Any,
    ) -> list[Any]:
        pixels = {image.getpixel((0, 0)) for image in images}

        def use_device() -> None:
            time.sleep(self.delay_s * len(images))
            self._misbehave(pixels)

        use_device() if self.run is None else self.run(use_device)
        if {row_seed(0, key) for key in self.refuses_seeds_of} & set(seeds):
            raise MemoryError("out of memory")
        assert len({self.working_size(image.size) for image in images}) == 1
        maps = [
            np.asarray(image.convert("L"), np.float32) / 260 + (seed % 256) / 65535
            for image, seed in zip(images, seeds, strict=True)
        ]
        if self.fails_while and os.path.exists(self.fails_while):
            maps = [values if seed % 3 else values * np.nan for values, seed in zip(maps, seeds, strict=True)]
        if isinstance(condition, str):
            return maps
        return [{name: values / (1 + at) for at, name in enumerate(condition)} for values in maps]

    def estimate_ensemble(
        self, images: list[Image.Image], condition: str | tuple[str, ...], *, ensemble_size: int, **options: Any
    ) -> list[Any]:
        def combined(values: Any) -> Any:
            if isinstance(values, dict):
                return {name: combined(each) for name, each in values.items()}
            return FakeEstimate(values, 1 / ensemble_size)

        return [combined(values) for values in self.estimate(images, condition, **options)]

    def _misbehave(self, pixels: set[Any]) -> None:
        if self.dies_twice_in and len(deaths := os.listdir(self.dies_twice_in)) < 2:
            (Path(self.dies_twice_in) / str(len(deaths))).touch()
            os._exit(1)
        if self.die_on_red and (255, 0, 0) in pixels:
            os._exit(1)
        if self.hang_on_green and (0, 255, 0) in pixels:
            time.sleep(10_000)
        if self.raise_on_blue and (0, 0, 255) in pixels:
            raise RuntimeError("the size of tensor a must match the size of tensor b")
        if self.raises:
            raise RuntimeError(self.raises)
        if self.break_on_white and (255, 255, 255) in pixels:
            BROKEN_DEVICES.add(os.getpid())
        if os.getpid() in BROKEN_DEVICES:
            raise RuntimeError("CUDA error: device-side assert triggered")

    def synthesize(
        self, conditions: Mapping[str, list[np.ndarray]], prompts: list[str], *, seeds: list[int], **options: Any
    ) -> list["FakeGenerated"]:
        rows = [dict(zip(conditions, maps, strict=True)) for maps in zip(*conditions.values(), strict=True)]
        sizes = [next(iter(maps.values())).shape[:2] for maps in rows]
        return [
            FakeGenerated(painted(size[::-1], seed), maps) for size, seed, maps in zip(sizes, seeds, rows, strict=True)
        ]

    def generate_pairs(
        self, prompts: list[str], condition: tuple[str, ...], *, size: tuple[int, int] | None, seeds: list[int],
        **options: Any,
    ) -> list["FakeGenerated"]:  # fmt: skip
        width, height = size or (64, 64)
        maps = {name: np.full((height, width), 0.5, np.float32) for name in condition}
        return [FakeGenerated(painted((width, height), seed), maps) for seed in seeds]

    def inpaint(
        self, images: list[Image.Image], masks: list[np.ndarray], prompts: list[str], *, condition: tuple[str, ...],
        seeds: list[int], **options: Any,
    ) -> list["FakeGenerated"]:  # fmt: skip
        results = []
        for image, mask, seed in zip(images, masks, seeds, strict=True):
            gray = Image.fromarray((mask * 255).astype(np.uint8))
            maps = {name: mask for name in condition}
            results.append(FakeGenerated(Image.composite(painted(image.size, seed), image, gray), maps))
        return results


@dataclass(frozen=True)
class FakeEstimate:
    """The result of an ensemble."""

    map: np.ndarray
    confidence: float


@dataclass(frozen=True)
class FakeGenerated:
    """An image and its conditions."""

    image: Image.Image
    conditions: Mapping[str, np.ndarray]
    prompt_tokens_cut: int = 0


def painted(size: tuple[int, int], seed: int) -> Image.Image:
    """Return an image of one color that depends on the seed."""
    return Image.new("RGB", size, (seed % 256, seed // 256 % 256, 200))
