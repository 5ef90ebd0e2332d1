"""The field of rivals by name: how each is built, and how it is called in tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.rivals.base import Base
from benchmarks.rivals.controlnet_rival import ControlNetRival
from benchmarks.rivals.data import TrainingScenes
from benchmarks.rivals.jointnet_rival import JointNetRival
from benchmarks.rivals.regression_rival import RegressionRival
from benchmarks.rivals.rival import Rival
from benchmarks.rivals.unicon_rival import UniConRival


@dataclass(frozen=True)
class Entry:
    """A rival before it is built."""

    title: str
    build: Callable[[Base, TrainingScenes, int], Rival]
    """(base, scenes, pairs in a step) -> the rival, untrained."""


FIELD = {
    "unicon": Entry("UniCon", partial(UniConRival, single_step=False)),
    "unicon-single-step": Entry("UniCon, half of it for one step", partial(UniConRival, single_step=True)),
    "controlnet": Entry("ControlNet", ControlNetRival),
    "jointnet": Entry("JointNet-style copy", JointNetRival),
    "regression": Entry("regression, UNet of the base", partial(RegressionRival, from_base=True)),
    "regression-scratch": Entry("regression, untrained UNet", partial(RegressionRival, from_base=False)),
}  # fmt: skip
"""Every rival by name."""
