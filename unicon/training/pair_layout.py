"""The layout of a training step: static, with weights that change from step to step as a tensor.

Shapes: P pairs, N tokens, C channels.

Tested in tests/unicon/training/test_pairs.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unicon.layout import Layout, Weights
from unicon.pairs import Pairs


@dataclass(frozen=True, eq=False)
class TensorWeights(Weights):
    """Weights of a joint group in a tensor, which the next step may fill with others."""

    tensor: Tensor
    """(P,)."""

    def weigh(self, joint: Tensor) -> Tensor:
        """Multiply (P, N, C) by the weights."""
        return joint * self.tensor.to(joint.dtype)[:, None, None]


class PairLayouts:
    """Layouts of images followed by their conditions, one for every number of pairs, made once."""

    def __init__(self, adapter: str, device: torch.device) -> None:
        self.adapter, self.device = adapter, device
        self._layouts: dict[int, tuple[Layout, Tensor]] = {}

    def layout(self, weights: Tensor) -> Layout:
        """The layout of P pairs with the joint weights (P,) of both sides. It holds until the next call."""
        count = len(weights)
        if count not in self._layouts:
            self._layouts[count] = self._new(count)
        layout, buffer = self._layouts[count]
        buffer.copy_(weights, non_blocking=True)
        return layout

    def _new(self, count: int) -> tuple[Layout, Tensor]:
        layout = Pairs.one_to_one(count, self.adapter).layout
        buffer = torch.ones(count, device=self.device)
        weights = TensorWeights((), buffer)
        groups = (
            replace(group, weights_to_image=weights, weights_to_condition=weights) for group in layout.joint_groups
        )
        return replace(layout, joint_groups=tuple(groups)), buffer
