"""Pairs: which rows of a batch belong together. They are an argument of every call of the UNet.

Every row of a batch is an image row or a condition row of one adapter. A pair joins one image row with one condition
row. A row may belong to several pairs, as an image with several conditions does.

    pairs = Pairs.one_to_one(batch_size=4, adapter="depth")        # rows 0..3 images, rows 4..7 their depth maps
    unet(latents, timesteps, prompt_embeds, cross_attention_kwargs={"pairs": pairs})
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

Role = Literal["image", "condition"]


@dataclass(frozen=True)
class Pair:
    """An image row and a condition row that attend to each other through joint cross-attention."""

    image_row: int
    """Row of the image in the batch."""
    condition_row: int
    """Row of the condition in the batch."""
    adapter: str
    """Name of the adapter in the UNet, such as "depth"."""
    weight_to_image: float = 1.0
    """Factor of the joint output that is added to the image row."""
    weight_to_condition: float = 1.0
    """Factor of the joint output that is added to the condition row."""

    @property
    def is_joined(self) -> bool:
        """False if both weights are 0. The joint term is then off, and the condition adapter stays on."""
        return self.weight_to_image != 0 or self.weight_to_condition != 0


class _Cached:
    """A frozen dataclass whose cached properties (index tensors) are not pickled or copied."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True)
class Rows(_Cached):
    """Some rows of a batch, in a given order. A row may occur twice. Adjacent rows are read without a copy."""

    indices: tuple[int, ...]

    @cached_property
    def span(self) -> slice | None:
        """The rows as a slice if they are adjacent and ascending, else None."""
        first = self.indices[0]
        if self.indices == tuple(range(first, first + len(self.indices))):
            return slice(first, first + len(self.indices))
        return None

    @cached_property
    def _index_by_device(self) -> dict[torch.device, Tensor]:
        return {}

    def index(self, device: torch.device) -> Tensor:
        """The rows as an int64 tensor on the device. It is created once."""
        if device not in self._index_by_device:
            self._index_by_device[device] = torch.tensor(self.indices, dtype=torch.int64, device=device)
        return self._index_by_device[device]

    def take(self, batch: Tensor) -> Tensor:
        """Take these rows: (B, ...) -> (len(self), ...)."""
        return batch[self.span] if self.span is not None else batch.index_select(0, self.index(batch.device))

    def add(self, batch: Tensor, rows: Tensor) -> Tensor:
        """Return a new (B, ...) with (len(self), ...) added to these rows. A row that occurs twice gets the sum."""
        return batch.index_add(0, self.index(batch.device), rows.to(batch.dtype))

    def add_(self, batch: Tensor, rows: Tensor) -> None:
        """Do the same as `add`, in place."""
        if self.span is not None:
            batch[self.span] += rows
        else:
            batch.index_add_(0, self.index(batch.device), rows)


@dataclass(frozen=True)
class Segment:
    """Adjacent rows of one role."""

    role: Role
    adapter: str | None
    """The adapter of condition rows; None for image rows."""
    rows: slice


@dataclass(frozen=True)
class JointGroup(_Cached):
    """The joined pairs of one adapter: entry i joins image row i with condition row i."""

    adapter: str
    image_rows: Rows
    condition_rows: Rows
    weights_to_image: tuple[float, ...]
    weights_to_condition: tuple[float, ...]

    @cached_property
    def _tensors(self) -> dict[tuple[Role, torch.device, torch.dtype], Tensor]:
        return {}

    def weigh(self, joint: Tensor, role: Role) -> Tensor:
        """Multiply (len, N, C) by the weight of every pair on the side of the role."""
        weights = self.weights_to_image if role == "image" else self.weights_to_condition
        if all(weight == 1 for weight in weights):
            return joint
        key = (role, joint.device, joint.dtype)
        if key not in self._tensors:
            self._tensors[key] = torch.tensor(weights, dtype=joint.dtype, device=joint.device)[:, None, None]
        return joint * self._tensors[key]


@dataclass(frozen=True)
class Pairs(_Cached):
    """The pairs of a batch and its number of rows. Rows without a pair are image rows.

    Raises:
        ValueError: A row is outside the batch, is both an image and a condition, or is a condition of two adapters; or
            a pair occurs twice.
    """

    pairs: tuple[Pair, ...]
    num_rows: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(self.pairs))
        if self.num_rows < 1:
            raise ValueError(f"Pairs needs at least one row; num_rows is {self.num_rows}. Give the size of the batch.")
        seen: set[tuple[int, int]] = set()
        for pair in self.pairs:
            self._check_range(pair)
            if (pair.image_row, pair.condition_row) in seen:
                raise ValueError(f"A pair may be given once; {pair} repeats its rows. Add the weights up instead.")
            seen.add((pair.image_row, pair.condition_row))
        self._check_roles()

    def _check_range(self, pair: Pair) -> None:
        for name, row in (("image_row", pair.image_row), ("condition_row", pair.condition_row)):
            if not 0 <= row < self.num_rows:
                raise ValueError(
                    f"Rows of a pair lie in 0..{self.num_rows - 1}; {name} of {pair} is {row}. "
                    "Correct the row, or num_rows."
                )

    def _check_roles(self) -> None:
        adapter_of: dict[int, str] = {}
        for pair in self.pairs:
            other = adapter_of.setdefault(pair.condition_row, pair.adapter)
            if other != pair.adapter:
                raise ValueError(
                    f"A condition row belongs to one adapter; row {pair.condition_row} came with {other!r} and "
                    f"{pair.adapter!r}. Give every condition a row of its own."
                )
        both = sorted({pair.image_row for pair in self.pairs} & set(adapter_of))
        if both:
            raise ValueError(
                f"A row is an image or a condition; rows {both} came as both. Give the condition a row of its own."
            )

    @classmethod
    def one_to_one(
        cls, batch_size: int, adapter: str, *, weight_to_image: float = 1.0, weight_to_condition: float = 1.0
    ) -> Pairs:
        """`batch_size` images, then their conditions in the same order: 2 * batch_size rows."""
        weights = (weight_to_image, weight_to_condition)
        pairs = (Pair(row, batch_size + row, adapter, *weights) for row in range(batch_size))
        return cls(tuple(pairs), 2 * batch_size)

    def repeat(self, times: int) -> Pairs:
        """Stack the batch `times` times, as classifier-free guidance does: all negative rows, then all positive."""
        return self.concatenate([self] * times)

    def without_joint(self) -> Pairs:
        """The same rows without the joint term. Condition rows keep their condition adapter."""
        off = (replace(pair, weight_to_image=0.0, weight_to_condition=0.0) for pair in self.pairs)
        return Pairs(tuple(off), self.num_rows)

    @staticmethod
    def concatenate(batches: Iterable[Pairs]) -> Pairs:
        """The pairs of several batches stacked along the rows."""
        pairs: list[Pair] = []
        start = 0
        for batch in batches:
            pairs += (
                replace(pair, image_row=pair.image_row + start, condition_row=pair.condition_row + start)
                for pair in batch.pairs
            )
            start += batch.num_rows
        return Pairs(tuple(pairs), start)

    @cached_property
    def condition_adapters(self) -> tuple[str | None, ...]:
        """The adapter of every condition row; None for image rows."""
        adapter_of = {pair.condition_row: pair.adapter for pair in self.pairs}
        return tuple(adapter_of.get(row) for row in range(self.num_rows))

    @cached_property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters in use, in order of appearance."""
        return tuple(dict.fromkeys(pair.adapter for pair in self.pairs))

    @cached_property
    def condition_groups(self) -> tuple[tuple[str, Rows], ...]:
        """(adapter, its condition rows) for every adapter in use."""
        rows_of = {
            adapter: tuple(row for row, owner in enumerate(self.condition_adapters) if owner == adapter)
            for adapter in self.adapters
        }
        return tuple((adapter, Rows(rows)) for adapter, rows in rows_of.items())

    @cached_property
    def joint_groups(self) -> tuple[JointGroup, ...]:
        """The joined pairs, those with a weight that is not 0, one group per adapter."""
        groups = []
        for adapter in self.adapters:
            joined = [pair for pair in self.pairs if pair.adapter == adapter and pair.is_joined]
            if joined:
                groups.append(
                    JointGroup(
                        adapter,
                        Rows(tuple(pair.image_row for pair in joined)),
                        Rows(tuple(pair.condition_row for pair in joined)),
                        tuple(float(pair.weight_to_image) for pair in joined),
                        tuple(float(pair.weight_to_condition) for pair in joined),
                    )
                )
        return tuple(groups)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The batch as runs of adjacent rows of one role, covering every row in order."""
        starts = [0]
        for row in range(1, self.num_rows):
            if self.condition_adapters[row] != self.condition_adapters[row - 1]:
                starts.append(row)
        segments = []
        for start, stop in zip(starts, [*starts[1:], self.num_rows], strict=True):
            adapter = self.condition_adapters[start]
            segments.append(Segment("image" if adapter is None else "condition", adapter, slice(start, stop)))
        return tuple(segments)
