"""The configuration of an adapter, readable without torch."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from unicon.conditions import CONDITIONS
from unicon.files.folder import adapter_metadata

DEFAULT_ESTIMATION_STEPS = 10
"""Sampling steps of an estimation where an adapter does not know better; trailing timestep spacing."""


class Recommended(NamedTuple):
    """What an adapter recommends for estimates."""

    steps: int = DEFAULT_ESTIMATION_STEPS
    views: int = 1


def recommended(adapter: Path) -> Recommended:
    """What an adapter recommends, read from its metadata alone."""
    config = adapter_metadata(adapter)
    steps = int(config.get("estimation_steps", DEFAULT_ESTIMATION_STEPS))
    return Recommended(steps, int(config.get("estimation_views", 1)))


LoraKind = Literal["image", "condition", "condition_adapter"]


Projection = Literal["fused", "separate"]


def lora_name(adapter: str, kind: LoraKind) -> str:
    """Name of one LoRA in peft: adapter "depth", kind "image" -> "depth-image"."""
    return f"{adapter}-{kind}"


SELF_ATTENTION = ("attn1",)


BOTH_ATTENTIONS = ("attn1", "attn2")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Everything needed to rebuild an adapter's modules around a UNet."""

    name: str
    """Name in the UNet and in `Pair.adapter`: letters, digits and underscores."""
    kind: str = ""
    """Kind of condition, a key of `unicon.conditions.CONDITIONS`; the name when empty."""
    rank: int = 64
    """Rank of every LoRA."""
    alpha: float = 0
    """LoRA scaling is alpha / rank; the rank when 0."""
    projection: Projection = "fused"
    """Output projection of the joint attention: "fused" (2C, 2C) or "separate" (C, C)."""
    condition_adapter: bool = True
    """Whether condition rows carry a LoRA in self-attention and text cross-attention."""
    trigger: str | None = None
    """Text put before the prompt of a condition row; the kind's own in `CONDITIONS` when None."""
    estimation_steps: int = DEFAULT_ESTIMATION_STEPS
    """Sampling steps that were found to estimate this condition best; what `estimate` takes when it is told nothing."""
    estimation_views: int = 1
    """Views of a picture whose estimates are averaged, see `unicon.views`; likewise."""
    annotator: str = ""
    """What made the conditions it was trained on, such as canny or hed (soft edges); empty where nobody said."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.name) or hasattr(nn.ModuleDict, self.name):
            raise ValueError(
                f"An adapter's name is letters, digits and underscores and no torch word; got {self.name!r}. Rename it."
            )
        if self.estimation_steps < 1:
            raise ValueError(f"estimation_steps is at least 1; got {self.estimation_steps}. 10 is usual.")
        if self.rank < 1 or self.alpha < 0:
            raise ValueError(
                f"rank is at least 1 and alpha not negative; got rank={self.rank}, alpha={self.alpha}. "
                "Published adapters have rank 64 and alpha 64."
            )
        if self.projection not in ("fused", "separate"):
            raise ValueError(f'projection is "fused" or "separate"; got {self.projection!r}. Depth uses "fused".')
        object.__setattr__(self, "kind", self.kind or self.name)
        if self.trigger is None:
            object.__setattr__(self, "trigger", CONDITIONS[self.kind].trigger if self.kind in CONDITIONS else "")
        object.__setattr__(self, "alpha", float(self.alpha or self.rank))

    @property
    def loras(self) -> tuple[tuple[LoraKind, tuple[str, ...]], ...]:
        """(kind of LoRA, attention modules it lives in)."""
        joint: tuple[tuple[LoraKind, tuple[str, ...]], ...] = (("image", SELF_ATTENTION), ("condition", SELF_ATTENTION))
        return (*joint, ("condition_adapter", BOTH_ATTENTIONS)) if self.condition_adapter else joint

    def to_dict(self) -> dict:
        """Plain values, the keyword arguments that rebuild this configuration."""
        return asdict(self)
