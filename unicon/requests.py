"""What is asked of the model: rows, and the plan that all rows of a call share.

A `RowRequest` is one row: its inputs (image, maps, mask) and what is asked for (prompt, seed, sizes). A
`GenerationPlan` holds what all rows of a call share: roles and their paths, weights, guidance, sampler. A role whose
path stays at the clean end is given. Every other role is generated, inside the request's mask if it has one.

Tested in tests/unicon/test_generation.py and tests/unicon/test_one_way.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from unicon.options import MAX_WEIGHT, SamplingOptions, check_whole
from unicon.pairs import Pair, Pairs
from unicon.sampling.step_table import StepTable

Weight = float | tuple[float, float]
"""Weight of the joint attention of an adapter: one for both sides, or (to the image, to the condition)."""
MAX_BATCH_SIZE = 65_536


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """One row: its inputs and what is asked for. The result of a row is a function of this and the plan."""

    working_size: tuple[int, int]
    """(width, height) at which the model works. Requests of one working size share micro-batches."""
    size: tuple[int, int]
    """(width, height) of the result."""
    seed: int
    """Seed of the generator from which all random numbers of the row come."""
    prompt: str = ""
    negative_prompt: str = ""
    image: Image.Image | None = None
    """8-bit RGB. Needed where the image is given or partly kept."""
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Adapter name -> map. Needed for conditions that are given, partly kept, or start part-way."""
    mask: np.ndarray | None = None
    """float32 (H, W) of the result's size: 1 generates, 0 keeps. For None, everything is generated."""


class Branch(NamedTuple):
    """Rows of the UNet's batch that belong to one role, one for each request."""

    role: int
    """0 is the image, 1 and more are the conditions."""
    run: int
    """Branches of different runs do not attend to each other, and draw from generators of their own."""


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """What all rows of a call share.

    Raises:
        ValueError: The batch size or a weight is out of range, the adapters and weights do not fit each other, or one
            way is asked for where nothing is given.
    """

    adapters: tuple[str, ...]
    """Adapters of the conditions, which are the roles after the image."""
    table: StepTable
    """The paths of the image and the conditions."""
    given: tuple[int, ...] = ()
    """Roles that are returned as they were given, whatever their path."""
    separate: bool = False
    """Whether every condition is sampled as in a call of its own, unaffected by the others. The image is given."""
    weights: Mapping[str, Weight] = field(default_factory=dict)
    """Adapter name -> weight; 1 by default."""
    sampling: SamplingOptions = SamplingOptions(guidance_scale=1.0)
    """Sampling options without open defaults."""
    batch_size: int | None = None
    """The largest number of rows in one micro-batch. For None, all rows of one working size."""

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        self._check_weights()
        if len(set(self.adapters)) != len(self.adapters):
            raise ValueError(f"A row has each condition once; got {list(self.adapters)}. Load the adapter twice.")
        assert not self.separate or 0 in self.given, "runs of their own share nothing but a given image"
        if self.sampling.one_way:
            self._check_one_way()

    def _check_weights(self) -> None:
        for name, weight in self.weights.items():
            sides = weight if isinstance(weight, tuple) else (weight, weight)
            if len(sides) != 2 or not all(math.isfinite(side) and abs(side) <= MAX_WEIGHT for side in sides):
                raise ValueError(
                    f"A weight is a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, or one to the image and one to the "
                    f"condition; {name!r} has {weight!r}. 1 is as trained."
                )
        unknown = sorted(set(self.weights) - set(self.adapters))
        if unknown:
            raise ValueError(
                f"Weights belong to the conditions of the call, {list(self.adapters)}; got weights for {unknown}. "
                "Correct the names."
            )

    def _check_one_way(self) -> None:
        if not self.static:
            raise ValueError(
                "one_way needs an image or conditions that are given and do not change; this call generates all of "
                "them together. Leave one_way out."
            )
        for role, adapter in enumerate(self.adapters, start=1):
            weight = self.weights.get(adapter)
            given = weight[0 if 0 in self.static else 1] if isinstance(weight, tuple) else 0
            if given != 0 and (0 in self.static or role in self.static):
                raise ValueError(
                    f"With one_way, nothing is added to what is given; {adapter!r} has the weights {weight}. Give one "
                    "number, or 0 for that side."
                )

    @property
    def static(self) -> frozenset[int]:
        """Roles that are run once for all steps: with one way, those that are given and stay at one level."""
        roles = self.given if self.sampling.one_way else ()
        return frozenset(role for role in roles if len(set(self.table.path(role))) == 1)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches of a batch: images, then the conditions of every adapter."""
        roles = range(1, 1 + len(self.adapters))
        if not self.separate:
            return (Branch(0, 0), *(Branch(role, 0) for role in roles))
        runs = roles[:1] if 0 in self.static else roles  # a static image serves all runs
        return (*(Branch(0, run - 1) for run in runs), *(Branch(role, role - 1) for role in roles))

    def pairs(self, num_rows: int) -> Pairs:
        """The pairs of a batch with `num_rows` rows in every branch, in the order of the branches."""
        branches, pairs = self.branches, []
        image_of = {branch.run: at for at, branch in enumerate(branches) if branch.role == 0}
        for at, branch in enumerate(branches):
            if branch.role:
                image, adapter = image_of.get(branch.run, 0), self.adapters[branch.role - 1]
                sides = self._sides(branch.role)
                pairs += [Pair(image * num_rows + row, at * num_rows + row, adapter, *sides) for row in range(num_rows)]
        return Pairs(tuple(pairs), num_rows * len(branches))

    def _sides(self, role: int) -> tuple[float, float]:
        """Weights (to the image, to the condition) of a condition; static roles get nothing."""
        weight = self.weights.get(self.adapters[role - 1], 1.0)
        to_image, to_condition = weight if isinstance(weight, tuple) else (weight, weight)
        return (0.0 if 0 in self.static else to_image, 0.0 if role in self.static else to_condition)
