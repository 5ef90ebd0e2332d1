"""The registry of condition kinds: trigger text, and how a map becomes a tensor, a file and a picture.

A map is what a condition is to people: for depth a float32 array (H, W) in [0, 1], relative inverse depth, 0 far and
1 near; for edge the same shape, strength of the edge at a pixel; for pose (H, W, 3), the
drawing of `unicon.pose`. A new kind is one entry of `CONDITIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One kind of condition."""

    name: str
    """Name, the default name of its adapters."""
    trigger: str
    """Text put before the prompt of a condition row."""
    encode: Callable[[np.ndarray], Image.Image]
    """Map -> picture to store, without loss beyond the stored depth of bits."""
    decode: Callable[[Image.Image], np.ndarray]
    """Stored picture -> map, the inverse of `encode`."""
    to_model: Callable[[np.ndarray], Tensor]
    """Map (H, W) -> float32 tensor (3, H, W) in [-1, 1] for the VAE."""
    from_model: Callable[[Tensor], np.ndarray]
    """Decoded VAE tensor (3, H, W) around [-1, 1] -> map (H, W)."""
    preview: Callable[[np.ndarray], Image.Image]
    """Map -> RGB picture for people."""


def encode_depth(depth: np.ndarray) -> Image.Image:
    """(H, W) in [0, 1] -> 16-bit grey picture: 0 far, 65535 near."""
    levels = np.round(np.clip(depth, 0.0, 1.0) * 65535.0).astype(np.uint16)
    return Image.fromarray(levels)


def decode_depth(picture: Image.Image) -> np.ndarray:
    """16-bit (or 8-bit) grey picture -> float32 (H, W) in [0, 1]."""
    if not picture.mode.startswith("I"):
        return np.asarray(picture.convert("L"), dtype=np.float32) / 255.0
    return np.asarray(picture).astype(np.float32) / 65535.0


def depth_to_model(depth: np.ndarray) -> Tensor:
    """(H, W) in [0, 1] -> (3, H, W) in [-1, 1], the same value in every channel."""
    grey = torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32)) * 2.0 - 1.0
    return grey.expand(3, -1, -1).clone()


def depth_from_model(decoded: Tensor) -> np.ndarray:
    """(3, H, W) around [-1, 1] -> float32 (H, W) in [0, 1]: the mean of the channels."""
    grey = decoded.float().mean(dim=0) * 0.5 + 0.5
    return grey.clamp(0.0, 1.0).cpu().numpy()


_INFERNO = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
     (249, 201, 50), (252, 255, 164)],
    dtype=np.float32,
)  # fmt: skip
"""Nine points of matplotlib's "inferno" colour map (public domain, CC0), dark to bright."""


def preview_depth(depth: np.ndarray) -> Image.Image:
    """(H, W) in [0, 1] -> RGB picture, dark far and bright near."""
    position = np.clip(depth, 0.0, 1.0) * (len(_INFERNO) - 1)
    low = np.minimum(position.astype(int), len(_INFERNO) - 2)
    fraction = (position - low)[..., None]
    colours = _INFERNO[low] * (1 - fraction) + _INFERNO[low + 1] * fraction
    return Image.fromarray(np.round(colours).astype(np.uint8))


DEPTH = Condition(
    name="depth",
    trigger="depth_map, ",
    encode=encode_depth,
    decode=decode_depth,
    to_model=depth_to_model,
    from_model=depth_from_model,
    preview=preview_depth,
)


def encode_edge(edges: np.ndarray) -> Image.Image:
    """(H, W) in [0, 1] -> 8-bit grey picture: 0 none, 255 edge."""
    return Image.fromarray(np.round(np.clip(edges, 0.0, 1.0) * 255.0).astype(np.uint8))


def preview_edge(edges: np.ndarray) -> Image.Image:
    """(H, W) in [0, 1] -> grey RGB picture, bright edges."""
    return encode_edge(edges).convert("RGB")


EDGE = Condition(
    name="edge",
    trigger="edge_map, ",
    encode=encode_edge,
    decode=decode_depth,
    to_model=depth_to_model,
    from_model=depth_from_model,
    preview=preview_edge,
)


def encode_rgb(picture: np.ndarray) -> Image.Image:
    """(H, W, 3) in [0, 1] -> 8-bit RGB picture."""
    return Image.fromarray(np.round(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8))


def decode_rgb(picture: Image.Image) -> np.ndarray:
    """Picture -> float32 (H, W, 3) in [0, 1]."""
    return np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0


def rgb_to_model(picture: np.ndarray) -> Tensor:
    """(H, W, 3) in [0, 1] -> (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32)).permute(2, 0, 1) * 2.0 - 1.0


def rgb_from_model(decoded: Tensor) -> np.ndarray:
    """(3, H, W) around [-1, 1] -> float32 (H, W, 3) in [0, 1]."""
    return (decoded.float() * 0.5 + 0.5).clamp(0.0, 1.0).permute(1, 2, 0).cpu().numpy()


POSE = Condition(
    name="pose",
    trigger="pose_map, ",
    encode=encode_rgb,
    decode=decode_rgb,
    to_model=rgb_to_model,
    from_model=rgb_from_model,
    preview=encode_rgb,
)

CONDITIONS: dict[str, Condition] = {condition.name: condition for condition in (DEPTH, EDGE, POSE)}
"""Every kind of condition by name."""
