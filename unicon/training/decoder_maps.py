"""The condition maps that a small decoder is trained on: files of the user, or rendered scenes, and their latents.

Shapes: S maps of one kind, H W pixels, c latent channels, h w latent size.

Tested in tests/unicon/training/test_decoder.py.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unicon.autoencoders import Autoencoder, decode_scaled, encode_scaled
from unicon.conditions import CONDITIONS
from unicon.images import resize_map
from unicon.training.mini.scene_cache import load_cache, render_cache
from unicon.training.mini.vae import map_pixels
from unicon.training.photographs import UnreadableImageError, find_images

HELD_OUT_SHARE, MAX_HELD_OUT = 8, 32
"""The share (one of this number) and the largest number of maps of a kind that are held out of the training."""
CODED_TOGETHER = {"cpu": 4, "cuda": 16}
"""Maps that the autoencoder encodes and decodes at a time, by kind of device."""
SCENE_KINDS = ("depth", "edge", "pose")
SCENE_SEED = 21
"""A sequence of scenes of its own, different from those of training and evaluation of `mini`."""


def scene_maps(folder: Path, count: int, side_px: int) -> dict[str, Tensor]:
    """Depth, edges and poses of rendered scenes, each float16 (S, 3, side, side) in [-1, 1].

    Args:
        folder: Keeps the rendered scenes.
        count: Number of scenes.
        side_px: Width and height.
    """
    render_cache(folder, SCENE_SEED, count, (side_px, side_px))
    scenes = load_cache(folder, count)
    return {kind: _tensor(map_pixels(scenes, kind, np.s_[:])) for kind in SCENE_KINDS}


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).half()


def read_maps(folders: Mapping[str, Path], side_px: int) -> dict[str, Tensor]:
    """Read folders of maps as this project stores them, each float16 (S, 3, side, side) in [-1, 1].

    Args:
        folders: Kind of condition -> folder.
        side_px: Width and height. Maps are cut to a square in their middle.

    Raises:
        FileNotFoundError: A folder does not exist, or holds no images.
        UnreadableImageError: A file cannot be decoded.
    """
    return {
        kind: torch.stack([_read(kind, path, side_px) for path in find_images(folder).values()])
        for kind, folder in folders.items()
    }


def _read(kind: str, path: Path, side_px: int) -> Tensor:
    try:
        with Image.open(path) as image:
            values = CONDITIONS[kind].decode(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} cannot be decoded: {error}. Remove the file.") from error
    height, width = values.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(values[top : top + side, left : left + side])
    return CONDITIONS[kind].to_model(resize_map(square, (side_px, side_px))).half()


def num_held_out(count: int) -> int:
    """How many of the maps of one kind are held out of the training; at least one.

    Raises:
        ValueError: There are fewer than two maps.
    """
    if count < 2:
        raise ValueError(
            f"Training needs at least two maps of a kind, one of them to compare with; got {count}. Add more."
        )
    return min(MAX_HELD_OUT, max(1, count // HELD_OUT_SHARE))


class CodedMaps(NamedTuple):
    """Maps of one kind with their latents."""

    latents: Tensor
    """(S, c, h, w) scaled latents, float16 on the CPU."""
    decoded: Tensor
    """(S, 3, H, W) float16 on the CPU: what the autoencoder decodes from them."""

    @property
    def num_held_out(self) -> int:
        """How many maps, the last ones, are held out of the training."""
        return num_held_out(len(self.latents))

    def training(self) -> CodedMaps:
        """The maps to train on."""
        return CodedMaps(*(rows[: -self.num_held_out] for rows in self))

    def held_out(self) -> CodedMaps:
        """The maps that are held out."""
        return CodedMaps(*(rows[-self.num_held_out :] for rows in self))


def code_maps(vae: Autoencoder, maps: Tensor) -> CodedMaps:
    """Encode maps (S, 3, H, W) in [-1, 1] and decode them with the autoencoder of a model, in its precision."""
    latents, decoded = [], []
    with torch.no_grad():
        for part in maps.split(CODED_TOGETHER.get(vae.device.type, 4)):
            coded = encode_scaled(vae, part.to(vae.device, vae.dtype))
            latents.append(coded.half().cpu())
            decoded.append(decode_scaled(vae, coded).clamp(-1, 1).half().cpu())
    return CodedMaps(torch.cat(latents), torch.cat(decoded))
