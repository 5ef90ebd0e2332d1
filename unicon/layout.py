"""The layout of a batch: the role of every row, and which rows attend to each other. Static values, without tensors.

A layout is an argument of every call of the UNet. It is frozen and hashable, so that a compiled call can be stored for
it. It is derived from `unicon.pairs.Pairs`; `unicon.one_way` splits a batch into two layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

Role = Literal["image", "condition"]
Part = Literal["query", "key", "value"]
QUERY_KEY_VALUE: tuple[Part, ...] = ("query", "key", "value")


class Cached:
    """A frozen dataclass whose cached properties (index tensors) are not pickled or copied."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True)
class Rows(Cached):
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
class Weights(Cached):
    """The factor of the joint output that is added to every row of one side of a joint group."""

    values: tuple[float, ...]

    @cached_property
    def _tensors(self) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {}

    def weigh(self, joint: Tensor) -> Tensor:
        """Multiply (len, N, C) by the factors. Without a factor that is not 1, it is returned as it is."""
        if all(value == 1 for value in self.values):
            return joint
        if len(set(self.values)) == 1:
            return joint * self.values[0]
        key = (joint.device, joint.dtype)
        if key not in self._tensors:
            self._tensors[key] = torch.tensor(self.values, dtype=joint.dtype, device=joint.device)[:, None, None]
        return joint * self._tensors[key]


@dataclass(frozen=True)
class Segment:
    """Adjacent rows of one role."""

    role: Role
    adapter: str | None
    """The adapter of condition rows; None for image rows."""
    rows: slice


@dataclass(frozen=True)
class JointGroup(Cached):
    """The joined pairs of one adapter: entry i joins image row i with condition row i."""

    adapter: str
    image_rows: Rows
    condition_rows: Rows
    weights_to_image: Weights
    weights_to_condition: Weights


@dataclass(frozen=True)
class Sources:
    """Static rows whose projections for the joint attention of one adapter are kept for moving rows."""

    adapter: str
    rows: Rows
    """Entry i is kept for moving row i of the group of the same place in `Layout.one_way_groups`."""
    parts: tuple[Part, ...]
    """Key and value; also the query if the output projection mixes both sides."""


@dataclass(frozen=True)
class OneWayGroup:
    """Joined pairs of one adapter with one moving side: entry i joins moving row i with entry i of what was kept."""

    adapter: str
    role: Role
    """Role of the moving rows."""
    rows: Rows
    weights: Weights
    parts: tuple[Part, ...]
    """The projections of the static side that were kept."""

    @property
    def own_parts(self) -> tuple[Part, ...]:
        """The projections of the moving rows that are needed: all if the output projection mixes both sides."""
        return QUERY_KEY_VALUE if "query" in self.parts else ("query",)


@dataclass(frozen=True)
class Run:
    """Adjacent rows that need the same projections, so that one matrix product yields them."""

    adapter: str | None
    """The adapter of condition rows; None for image rows."""
    rows: slice
    joint: tuple[tuple[str, Part], ...]
    """(adapter, part) of the projections that joint attention needs of these rows."""


@dataclass(frozen=True)
class Layout(Cached):
    """The rows of one call of the UNet."""

    condition_adapters: tuple[str | None, ...]
    """The adapter of every condition row; None for image rows."""
    joint_groups: tuple[JointGroup, ...] = ()
    """The joined pairs whose rows are all in the batch, one group per adapter."""
    sources: tuple[Sources, ...] = ()
    """What is kept of the rows for calls with other rows; see `unicon.one_way`."""
    one_way_groups: tuple[OneWayGroup, ...] = ()
    """The joined pairs whose other side was kept."""

    @property
    def num_rows(self) -> int:
        return len(self.condition_adapters)

    @property
    def num_features(self) -> int:
        """The number of tensors that are kept per transformer block for these rows, or of these rows."""
        return sum(len(group.parts) for group in (*self.sources, *self.one_way_groups))

    @cached_property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters in use, in order of appearance."""
        joined = (*self.joint_groups, *self.sources, *self.one_way_groups)
        named = [*self.condition_adapters, *(group.adapter for group in joined)]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @cached_property
    def condition_groups(self) -> tuple[tuple[str, Rows], ...]:
        """(adapter, its condition rows) for every adapter that has condition rows in the batch."""
        rows_of: dict[str, list[int]] = {}
        for row, adapter in enumerate(self.condition_adapters):
            if adapter is not None:
                rows_of.setdefault(adapter, []).append(row)
        return tuple((adapter, Rows(tuple(rows))) for adapter, rows in rows_of.items())

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The batch as runs of adjacent rows of one role, covering every row in order."""
        return tuple(
            Segment("image" if adapter is None else "condition", adapter, rows)
            for adapter, rows in _equal_neighbors(self.condition_adapters)
        )

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The batch as runs of adjacent rows that need the same projections, covering every row in order."""
        needed: list[dict[tuple[str, Part], None]] = [{} for _ in self.condition_adapters]
        for adapter, rows, parts in self._joint_sides():
            for row in rows.indices:
                needed[row] |= dict.fromkeys((adapter, part) for part in parts)
        keys = [(adapter, tuple(parts)) for adapter, parts in zip(self.condition_adapters, needed, strict=True)]
        return tuple(Run(adapter, rows, parts) for (adapter, parts), rows in _equal_neighbors(keys))

    def _joint_sides(self) -> list[tuple[str, Rows, tuple[Part, ...]]]:
        """(adapter, rows, parts) of every side of a joint group."""
        both = [(group, rows) for group in self.joint_groups for rows in (group.image_rows, group.condition_rows)]
        return [
            *((group.adapter, rows, QUERY_KEY_VALUE) for group, rows in both),
            *((source.adapter, source.rows, source.parts) for source in self.sources),
            *((group.adapter, group.rows, group.own_parts) for group in self.one_way_groups),
        ]

    @cached_property
    def pieces(self) -> dict[Rows, tuple[tuple[int, slice], ...]]:
        """Where the rows of every side of a joint group are: (index of the run, rows within it), in order."""
        run_of = [(at, row - run.rows.start) for at, run in enumerate(self.runs)
                  for row in range(run.rows.start, run.rows.stop)]  # fmt: skip
        return {rows: tuple(_adjacent([run_of[row] for row in rows.indices])) for _, rows, _ in self._joint_sides()}


def _equal_neighbors(keys: Sequence[Any]) -> list[tuple[Any, slice]]:
    """(key, positions) of every run of equal neighbors."""
    starts = [at for at, key in enumerate(keys) if at == 0 or key != keys[at - 1]]
    return [
        (keys[start], slice(start, stop)) for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True)
    ]  # fmt: skip


def _adjacent(places: Sequence[tuple[int, int]]) -> list[tuple[int, slice]]:
    """Join places (run, row) that follow each other in one run to slices."""
    pieces: list[tuple[int, slice]] = []
    for run, row in places:
        if pieces and pieces[-1][0] == run and pieces[-1][1].stop == row:
            pieces[-1] = (run, slice(pieces[-1][1].start, row + 1))
        else:
            pieces.append((run, slice(row, row + 1)))
    return pieces
