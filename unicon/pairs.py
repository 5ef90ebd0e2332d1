"""Pairs: which rows of a batch belong together. They are an argument of every call of the UNet.

Every row of a batch is an image row or a condition row of one adapter. A pair joins one image row with one condition
row. A row may belong to several pairs, as an image with several conditions does.

    pairs = Pairs.one_to_one(batch_size=4, adapter="depth")        # rows 0..3 images, rows 4..7 their depth maps
    unet(latents, timesteps, prompt_embeds, cross_attention_kwargs={"pairs": pairs})
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from unicon.layout import Cached, JointGroup, Layout, Rows, Weights


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


@dataclass(frozen=True)
class Pairs(Cached):
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
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters in use, in order of appearance."""
        return tuple(dict.fromkeys(pair.adapter for pair in self.pairs))

    @cached_property
    def layout(self) -> Layout:
        """The layout of a call with all rows."""
        adapter_of = {pair.condition_row: pair.adapter for pair in self.pairs}
        joined = {
            name: [pair for pair in self.pairs if pair.adapter == name and pair.is_joined] for name in self.adapters
        }
        groups = tuple(joint_group(adapter, pairs) for adapter, pairs in joined.items() if pairs)
        return Layout(tuple(adapter_of.get(row) for row in range(self.num_rows)), groups)


def joint_group(adapter: str, pairs: Sequence[Pair]) -> JointGroup:
    """The joint group of some pairs of one adapter."""
    return JointGroup(
        adapter,
        Rows(tuple(pair.image_row for pair in pairs)),
        Rows(tuple(pair.condition_row for pair in pairs)),
        Weights(tuple(float(pair.weight_to_image) for pair in pairs)),
        Weights(tuple(float(pair.weight_to_condition) for pair in pairs)),
    )


@dataclass(frozen=True)
class Stacking:
    """Copies of a batch stacked by role: all copies of the first rows of one role, then of the next ones.

    So rows of one role stay adjacent, and one matrix product serves all of them.
    """

    sizes: tuple[int, ...]
    """The number of adjacent rows of every role."""
    copies: int

    @classmethod
    def of(cls, layout: Layout, copies: int) -> Stacking:
        """The stacking of a batch."""
        return cls(tuple(segment.rows.stop - segment.rows.start for segment in layout.segments), copies)

    def of_some(self, rows: Rows) -> Stacking:
        """The stacking of a part of the batch."""
        ends = list(accumulate(self.sizes))
        counts = [
            sum(end - size <= row < end for row in rows.indices) for size, end in zip(self.sizes, ends, strict=True)
        ]
        return Stacking(tuple(count for count in counts if count), self.copies)

    def place(self, copy: int, row: int) -> int:
        """The row of a copy in the stacked batch."""
        start = 0
        for size in self.sizes:
            if row < start + size:
                return start * self.copies + copy * size + row - start
            start += size
        raise IndexError(f"A row is below {start}; got {row}.")

    def stack_pairs(self, copies: Sequence[Pairs]) -> Pairs:
        """The pairs of all copies."""
        pairs = (
            replace(
                pair, image_row=self.place(copy, pair.image_row), condition_row=self.place(copy, pair.condition_row)
            )
            for copy, batch in enumerate(copies)
            for pair in batch.pairs
        )
        return Pairs(tuple(pairs), sum(self.sizes) * self.copies)

    def stack(self, copies: Sequence[Tensor]) -> Tensor:
        """Stack copies (B, ...) to (copies * B, ...)."""
        if len(copies) == 1:
            return copies[0]
        parts = zip(*(copy.split(self.sizes) for copy in copies), strict=True)
        return torch.cat([part for role in parts for part in role])

    def repeat(self, batch: Tensor) -> Tensor:
        """Stack the same tensor (B, ...) as every copy."""
        return self.stack([batch] * self.copies)

    def unstack(self, stacked: Tensor) -> list[Tensor]:
        """The inverse of `stack`."""
        if self.copies == 1:
            return [stacked]
        parts = stacked.split([size for size in self.sizes for _ in range(self.copies)])
        return [torch.cat(parts[copy :: self.copies]) for copy in range(self.copies)]
