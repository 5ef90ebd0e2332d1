"""The registry of condition kinds: trigger text, and how a map becomes a tensor, a file and a picture.

A map is what a condition is to people, a float32 array with values in [0, 1]:

    depth                   (H, W)      relative inverse depth, 0 far and 1 near
    edge                    (H, W)      strength of the edge at a pixel
    pose                    (H, W, 3)   the drawing of `unicon.pose`
    appearance, identity    (H, W, 3)   an RGB picture of the same appearance, or of the same person

A new kind is one entry of `CONDITIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    channels: int
    """1 for maps (H, W), 3 for maps (H, W, 3)."""
    is_affine: bool = False
    """Whether a map is known up to a scale and a shift only: estimates are aligned before they are compared."""
    mirrors: bool = True
    """Whether the condition of the mirrored picture is the mirrored condition; not where left and right have names."""
    encode: Callable[[np.ndarray], Image.Image]
    """Map -> picture to store, without loss beyond the stored depth of bits."""
    decode: Callable[[Image.Image], np.ndarray]
    """Stored picture -> map, the inverse of `encode`."""
    to_model: Callable[[np.ndarray], Tensor]
    """Map -> float32 tensor (3, H, W) in [-1, 1] for the VAE."""
    from_model: Callable[[Tensor], np.ndarray]
    """Decoded VAE tensor (3, H, W) around [-1, 1] -> map."""
    preview: Callable[[np.ndarray], Image.Image]
    """Map -> RGB picture for people."""

    def check(self, values: np.ndarray) -> np.ndarray:
        """The map as float32. Errors: ValueError for another shape, whole numbers, or values outside [0, 1]."""
        values = np.asarray(values)
        shape = "(H, W)" if self.channels == 1 else "(H, W, 3)"
        fits = values.ndim == 2 if self.channels == 1 else values.ndim == 3 and values.shape[-1] == 3
        if not fits or values.size == 0 or values.dtype.kind != "f":
            raise ValueError(
                f"A {self.name} map is a float array {shape}; got {values.dtype} {values.shape}. "
                f"Read stored pictures with CONDITIONS[{self.name!r}].decode."
            )
        if not (values.min() >= 0.0 and values.max() <= 1.0):  # so that NaN is refused
            raise ValueError(
                f"A {self.name} map has values in [0, 1]; got {values.min()} to {values.max()}. Scale it first."
            )
        return values.astype(np.float32, copy=False)


def encode_depth(depth: np.ndarray) -> Image.Image:
    """(H, W) in [0, 1] -> 16-bit grey picture: 0 far, 65535 near."""
    levels = np.clip(depth, 0.0, 1.0)
    np.multiply(levels, 65535.0, out=levels)
    return Image.fromarray(np.rint(levels, out=levels).astype(np.uint16))


def decode_depth(picture: Image.Image) -> np.ndarray:
    """16-bit (or 8-bit) grey picture -> float32 (H, W) in [0, 1]."""
    if not picture.mode.startswith("I"):
        return np.asarray(picture.convert("L"), dtype=np.float32) / 255.0
    return np.asarray(picture).astype(np.float32) / 65535.0


def encode_8_bit(values: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, 3) in [0, 1] -> 8-bit grey or RGB picture."""
    return Image.fromarray(np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8))


def decode_rgb(picture: Image.Image) -> np.ndarray:
    """Picture -> float32 (H, W, 3) in [0, 1]."""
    return np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0


def grey_to_model(values: np.ndarray) -> Tensor:
    """(H, W) in [0, 1] -> (3, H, W) in [-1, 1], the same value in every channel."""
    grey = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)) * 2.0 - 1.0
    return grey.expand(3, -1, -1).clone()


def grey_from_model(decoded: Tensor) -> np.ndarray:
    """(3, H, W) around [-1, 1] -> float32 (H, W) in [0, 1]: the mean of the channels."""
    grey = decoded.float().mean(dim=0) * 0.5 + 0.5
    return grey.clamp(0.0, 1.0).cpu().numpy()


def rgb_to_model(picture: np.ndarray) -> Tensor:
    """(H, W, 3) in [0, 1] -> (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32)).permute(2, 0, 1) * 2.0 - 1.0


def rgb_from_model(decoded: Tensor) -> np.ndarray:
    """(3, H, W) around [-1, 1] -> float32 (H, W, 3) in [0, 1]."""
    return (decoded.float() * 0.5 + 0.5).clamp(0.0, 1.0).permute(1, 2, 0).cpu().numpy()


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


def preview_8_bit(values: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, 3) in [0, 1] -> RGB picture: the map as it is stored."""
    return encode_8_bit(values).convert("RGB")


DEPTH = Condition(
    name="depth",
    trigger="depth_map, ",
    channels=1,
    is_affine=True,
    encode=encode_depth,
    decode=decode_depth,
    to_model=grey_to_model,
    from_model=grey_from_model,
    preview=preview_depth,
)
EDGE = replace(
    DEPTH, name="edge", trigger="edge_map, ", is_affine=False, encode=encode_8_bit, preview=preview_8_bit
)  # fmt: skip
POSE = Condition(
    name="pose",
    trigger="pose_map, ",
    channels=3,
    mirrors=False,
    encode=encode_8_bit,
    decode=decode_rgb,
    to_model=rgb_to_model,
    from_model=rgb_from_model,
    preview=preview_8_bit,
)
APPEARANCE = replace(POSE, name="appearance", trigger="", mirrors=True)
IDENTITY = replace(APPEARANCE, name="identity")

CONDITIONS: dict[str, Condition] = {kind.name: kind for kind in (DEPTH, EDGE, POSE, APPEARANCE, IDENTITY)}
CONDITIONS["id"] = IDENTITY
"""Every kind of condition by name; "id" is the published name of identity."""
