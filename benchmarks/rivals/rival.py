"""What every rival has, and what it may be able to make.

What is measured goes in and comes out as pixels, so that encoding and decoding count for every rival alike.

Shapes: H W pixels. Images are uint8 (H, W, 3), depth maps float32 (H, W) in [0, 1], 0 far.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unicon.training.pairs import PairsLoss

WEIGHTS_FILE = "weights.safetensors"


class Rival:
    """Something trained on images and depth maps."""

    trained: dict[str, nn.Parameter]
    """What is trained, by name."""
    loss: PairsLoss

    def save(self, folder: Path) -> None:
        """Write what was trained."""
        save_file({name: value.detach().contiguous() for name, value in self.trained.items()}, folder / WEIGHTS_FILE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        for name, value in load_file(folder / WEIGHTS_FILE).items():
            self.trained[name].copy_(value)


@runtime_checkable
class Estimates(Protocol):
    """A rival that estimates the depth of images."""

    def estimate(self, images: list[np.ndarray], steps: int) -> list[np.ndarray]:
        """The depth maps of images, in some sampling steps."""
        ...


@runtime_checkable
class Synthesizes(Protocol):
    """A rival that makes images from depth maps."""

    def synthesize(self, maps: list[np.ndarray], captions: list[str], steps: int, guidance: float) -> list[np.ndarray]:
        """Images with these depth maps.

        `guidance` is what `SamplingOptions.condition_guidance_scale` is for UniCon: the prediction moves by that
        multiple of its difference to the prediction without the depth map.
        """
        ...


@runtime_checkable
class Generates(Protocol):
    """A rival that makes images together with their depth maps."""

    def generate(self, captions: list[str], steps: int, guidance: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images and their depth maps. For `guidance` see `Synthesizes`."""
        ...
