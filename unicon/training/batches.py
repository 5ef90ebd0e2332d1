"""The batches of a training on images with several conditions, and where they come from.

Shapes: B rows of this worker, H W pixels, c h w latents.

Tested in tests/unicon/training/test_batches.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from unicon.images import normalized
from unicon.training.batch_plan import BatchPlan
from unicon.training.views import PairRow, ViewedRow, view_row
from unicon.training.workers import Workers


class BatchLatents(NamedTuple):
    """A batch in the latent space of an autoencoder."""

    images: Tensor
    """(B, c, h, w) scaled latents."""
    maps: Mapping[str, Tensor]
    """Adapter -> scaled latents of its maps (B, c, h, w)."""


@dataclass(frozen=True)
class PairBatch:
    """Rows of one working size: images, conditions, captions and weights."""

    keys: tuple[str, ...]
    images: Tensor
    """(B, 3, H, W), uint8 or in [-1, 1]."""
    maps: Mapping[str, Tensor]
    """Adapter -> its maps (B, 1 or 3, H, W), uint8 or in [-1, 1]."""
    captions: tuple[str, ...]
    weights: Tensor
    """(B,) float32, factors of the rows' losses; 0 or more."""
    mirrored: tuple[bool, ...]
    """Whether a row is mirrored."""

    def select(self, rows: Sequence[int]) -> PairBatch:
        """Some rows of the batch."""
        if list(rows) == list(range(len(self.keys))):
            return self
        index = torch.tensor(list(rows), dtype=torch.long)
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            images=self.images[index],
            maps={name: maps[index] for name, maps in self.maps.items()},
            captions=tuple(self.captions[row] for row in rows),
            weights=self.weights[index],
            mirrored=tuple(self.mirrored[row] for row in rows),
        )

    def to_model(self, device: torch.device) -> PairBatch:
        """The batch on a device, with images and maps (B, 3, H, W) in [-1, 1]."""
        maps = {name: normalized(maps.to(device)).expand(-1, 3, -1, -1) for name, maps in self.maps.items()}
        return replace(self, images=normalized(self.images.to(device)), maps=maps, weights=self.weights.to(device))


class BatchSource(Protocol):
    """A source of the batches of a training."""

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        """The rows of a worker, those at the places `Workers(rank, world_size).part(...)` of the step's global batch.

        The global batch is a function of the step. Steps are asked for in increasing order, from 0 or from where a
        training goes on. Maps of adapters that the step does not train may be missing, see `AdapterRecipe.step_kind`.
        """
        ...


def collate(rows: Sequence[ViewedRow]) -> PairBatch:
    """Stack rows of one size.

    Raises:
        ValueError: A weight is negative or not finite.
    """
    wrong = [row for row in rows if not 0 <= row.weight < float("inf")]
    if wrong:
        raise ValueError(
            f"Weights of rows are finite numbers of at least 0; row {wrong[0].key!r} has {wrong[0].weight}. Correct it."
        )
    return PairBatch(
        keys=tuple(row.key for row in rows),
        images=_stack([row.image for row in rows]),
        maps={name: _stack([row.maps[name] for row in rows]) for name in rows[0].maps},
        captions=tuple(row.caption for row in rows),
        weights=torch.tensor([row.weight for row in rows], dtype=torch.float32),
        mirrored=tuple(row.mirrored for row in rows),
    )


def _stack(values: Sequence[np.ndarray]) -> Tensor:
    """Stack (H, W) or (H, W, C) of 8 or 16 bits to (B, C, H, W): uint8, or float32 in [-1, 1] for 16 bits."""
    stacked = np.stack([each if each.ndim == 3 else each[..., None] for each in values])
    if stacked.dtype == np.uint16:
        stacked = stacked.astype(np.float32) / 32767.5 - 1
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


class RowBatches:
    """A `BatchSource` of rows that can be read in any order, such as the images of a folder."""

    def __init__(self, rows: Sequence[PairRow], plan: BatchPlan, kinds: Mapping[str, str]) -> None:
        """Prepare the batches.

        Args:
            rows: The rows. They may be read when they are asked for, by several threads.
            plan: Which rows a step sees.
            kinds: Adapter -> its kind of condition.
        """
        self.rows, self.plan, self.kinds = rows, plan, kinds
        self._pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))  # PIL decodes and resizes without the GIL
        self._ahead: dict[tuple[int, int, int], Iterator[ViewedRow]] = {}

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        """See `BatchSource`. The next batch is read in the background."""
        views = self._ahead.get((step, rank, world_size)) or self._begin(step, rank, world_size)
        self._ahead = {(step + 1, rank, world_size): self._begin(step + 1, rank, world_size)}
        return collate(list(views))

    def _begin(self, step: int, rank: int, world_size: int) -> Iterator[ViewedRow]:
        """Begin to read a batch."""
        planned = self.plan.batch(step).part(Workers(rank, world_size).part(self.plan.batch_size))
        return self._pool.map(lambda row, view: view_row(self.rows[row], view, self.kinds), planned.rows, planned.views)
