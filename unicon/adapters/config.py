"""The configuration of an adapter, and reading it from an adapter file. Imports no torch.

Tested in tests/unicon/adapters/test_unet.py and tests/unicon/adapters/test_checkpoint.py.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unicon.condition_kinds import CONDITION_KINDS
from unicon.files.adapter_header import read_adapter_header

DEFAULT_ESTIMATION_STEPS = 10
"""Sampling steps of an estimate (with trailing timestep spacing) where the adapter recommends none."""
LoraKind = Literal["image", "condition", "condition_adapter"]
Projection = Literal["fused", "separate"]
SELF_ATTENTION = ("attn1",)
BOTH_ATTENTIONS = ("attn1", "attn2")


def lora_name(adapter: str, kind: LoraKind) -> str:
    """Name of one LoRA in peft: adapter "depth", kind "image" -> "depth-image"."""
    return f"{adapter}-{kind}"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Everything needed to rebuild an adapter's modules around a UNet.

    Raises:
        ValueError: A value is out of its range.
    """

    name: str
    """Name in the UNet and in `Pair.adapter`: letters, digits and underscores."""
    kind: str = ""
    """Kind of condition, a key of `unicon.condition_kinds.CONDITION_KINDS`. Defaults to the name."""
    rank: int = 64
    """Rank of every LoRA."""
    alpha: float = 0
    """The LoRA scaling is alpha / rank. 0 stands for the rank."""
    projection: Projection = "fused"
    """Output projection of the joint attention: "fused" (2C, 2C) or "separate" (C, C)."""
    condition_adapter: bool = True
    """Whether condition rows carry a LoRA in self-attention and text cross-attention."""
    trigger: str | None = None
    """Text placed before the prompt of a condition row. Defaults to the trigger of the kind."""
    estimation_steps: int = DEFAULT_ESTIMATION_STEPS
    """Sampling steps that were found to estimate this condition best; the default of `UniCon.estimate`."""
    estimation_views: int = 1
    """Number of views whose estimates are averaged (see `unicon.views`); the default of `UniCon.estimate`."""
    single_step: bool = False
    """Whether the adapter was trained end to end for estimates in one step (`unicon.training.single_step`)."""
    annotator: str = ""
    """What made the conditions of the training data, such as canny or hed (soft edges); empty where unknown."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise ValueError(
                f"An adapter's name consists of letters, digits and underscores; got {self.name!r}. Rename it."
            )
        if self.estimation_steps < 1:
            raise ValueError(f"estimation_steps is at least 1; got {self.estimation_steps}. 10 is usual.")
        if self.rank < 1 or self.alpha < 0:
            raise ValueError(
                f"rank is at least 1 and alpha is not negative; got rank={self.rank}, alpha={self.alpha}. "
                "The official adapters have rank 64 and alpha 64."
            )
        if self.projection not in ("fused", "separate"):
            raise ValueError(f'projection is "fused" or "separate"; got {self.projection!r}. Depth uses "fused".')
        object.__setattr__(self, "kind", self.kind or self.name)
        if self.trigger is None:
            known = CONDITION_KINDS.get(self.kind)
            object.__setattr__(self, "trigger", known.trigger if known else "")
        object.__setattr__(self, "alpha", float(self.alpha or self.rank))

    @property
    def loras(self) -> tuple[tuple[LoraKind, tuple[str, ...]], ...]:
        """(kind of LoRA, attention modules that have it) for every LoRA."""
        joint: tuple[tuple[LoraKind, tuple[str, ...]], ...] = (("image", SELF_ATTENTION), ("condition", SELF_ATTENTION))
        return (*joint, ("condition_adapter", BOTH_ATTENTIONS)) if self.condition_adapter else joint

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the keyword arguments that rebuild this configuration."""
        return asdict(self)


def read_config(path: str | Path) -> tuple[AdapterConfig, dict[str, Any]]:
    """(configuration, shape of the base UNet) of an adapter file, without its tensors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an adapter, or is damaged. The message says which, and what to do.
    """
    header = read_adapter_header(Path(path))
    return AdapterConfig(**header.config), header.base


class Recommended(NamedTuple):
    """What an adapter recommends for estimates."""

    steps: int = DEFAULT_ESTIMATION_STEPS
    views: int = 1
    single_step: bool = False
    """Whether the adapter was trained for estimates in one step."""


def recommended(adapter: Path) -> Recommended:
    """What an adapter recommends for estimates. Folders in the official layout recommend nothing."""
    if adapter.is_dir():
        return Recommended()
    config, _ = read_config(adapter)
    return Recommended(config.estimation_steps, config.estimation_views, config.single_step)
