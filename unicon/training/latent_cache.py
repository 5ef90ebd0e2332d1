"""Latents and text embeddings of a training, kept in a folder, so that each is computed once.

A row has few latents: those of its image and of its maps at its working size, mirrored or not. So parts of images must
not be random (`Views.random_crop`), and working sizes must follow from the images (`Views.aspect_buckets`). Entries are
made when they are first needed. Several processes may share the folder: an entry is one file, written atomically.

Shapes: B rows, c h w latents, L text tokens of width D.

Tested in tests/unicon/training/test_latent_cache.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from unicon.training.batches import PairBatch
from unicon.training.models import TrainingModels
from unicon.training.views import Views

ENTRY = "value"


class LatentCache:
    """A folder of latents and text embeddings."""

    def __init__(self, folder: Path, identity: str, views: Views) -> None:
        """Open the folder of a training.

        Args:
            folder: The folder, of any number of trainings.
            identity: What the entries depend on beside the key of a row: the weights of the model, and the data.
            views: How parts of images are drawn.

        Raises:
            ValueError: A row would have many latents.
        """
        if views.random_crop or not views.aspect_buckets:
            raise ValueError(
                "Latents are kept where every row has one part and one size; got random_crop="
                f"{views.random_crop}, aspect_buckets={views.aspect_buckets}. Train with random_crop=False and "
                "aspect_buckets=True, or without a cache."
            )
        self.root = folder / _name([identity, str(views.resolution_px), str(views.multiple)])

    def latents(
        self, batch: PairBatch, pixels: Mapping[str, Tensor], encode: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Latents (B, c, h, w) by name, on the device of the pixels.

        Args:
            batch: The rows.
            pixels: Name -> images or maps of the rows, (B, 3, H, W) in [-1, 1].
            encode: Encodes (S, 3, H, W) to (S, c, h, w).
        """
        size = "x".join(map(str, batch.images.shape[2:]))
        labels = {
            name: [[key, name, size, str(mirrored)] for key, mirrored in zip(batch.keys, batch.mirrored, strict=True)]
            for name in pixels
        }
        flat = [(name, row) for name in pixels for row in range(len(batch.keys))]

        def make(missing: Sequence[int]) -> Tensor:
            return encode(torch.stack([pixels[flat[place][0]][flat[place][1]] for place in missing]))

        found = self._entries([labels[name][row] for name, row in flat], make, batch.images.device)
        return dict(zip(pixels, found.split(len(batch.keys)), strict=True))

    def embeddings(
        self, prompts: Sequence[str], encode: Callable[[Sequence[str]], Tensor], device: torch.device
    ) -> Tensor:
        """Text embeddings (B, L, D) of B prompts on a device. `encode` computes those of some prompts."""
        labels = [["prompt", prompt] for prompt in prompts]
        return self._entries(labels, lambda missing: encode([prompts[place] for place in missing]), device)

    def _entries(
        self, labels: Sequence[Sequence[str]], make: Callable[[Sequence[int]], Tensor], device: torch.device
    ) -> Tensor:
        """Entries of one shape. `make` computes those at some places, which are then written."""
        paths = [self._path(label) for label in labels]
        found = {place: _read(path) for place, path in enumerate(paths) if path.exists()}
        missing = [place for place in range(len(paths)) if place not in found]
        if missing:
            for place, value in zip(missing, make(missing).cpu(), strict=True):
                found[place] = value
                _write(paths[place], value)
        return torch.stack([found[place] for place in range(len(paths))]).to(device)

    def _path(self, label: Sequence[str]) -> Path:
        name = _name(label)
        return self.root / name[:2] / f"{name[2:]}.safetensors"


@dataclass(frozen=True)
class CachedTextModels(TrainingModels):
    """Models whose text encoder is frozen, with its embeddings kept."""

    cache: LatentCache | None = None

    @classmethod
    def of(cls, models: TrainingModels, cache: LatentCache) -> CachedTextModels:
        """The models with a cache."""
        return cls(**{each.name: getattr(models, each.name) for each in fields(TrainingModels)}, cache=cache)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """See `TrainingModels`."""
        assert self.cache is not None
        return self.cache.embeddings(prompts, self._encoded, self.text_encoder.device)

    @torch.no_grad()
    def _encoded(self, prompts: Sequence[str]) -> Tensor:
        with torch.autocast(self.text_encoder.device.type, enabled=False):
            return super().encode_prompts(prompts)


def _name(label: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(label).encode()).hexdigest()[:40]


def _read(path: Path) -> Tensor:
    return load(path.read_bytes())[ENTRY]


def _write(path: Path, value: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(save({ENTRY: value.contiguous()}))
    temporary.replace(path)
