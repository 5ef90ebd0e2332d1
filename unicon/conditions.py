"""How the map of a condition becomes a tensor, a file and a preview.

Names, trigger texts and file formats are in `unicon.condition_kinds`, which describes the maps. torch is imported only
where a map becomes a tensor: processes that store or show maps do not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from unicon.condition_kinds import CONDITION_KINDS, ConditionKind, MapFormat

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Condition(ConditionKind):
    """A kind of condition, with the conversions of its maps."""

    encode: Callable[[np.ndarray], Image.Image]
    """Map -> image to store; only the bit depth limits its precision."""
    decode: Callable[[Image.Image], np.ndarray]
    """Stored image -> map, the inverse of `encode`."""
    to_model: Callable[[np.ndarray], Tensor]
    """Map -> float32 tensor (3, H, W) in [-1, 1] for the VAE."""
    from_model: Callable[[Tensor], np.ndarray]
    """Decoded VAE tensor (3, H, W) around [-1, 1] -> map."""
    preview: Callable[[np.ndarray], Image.Image]
    """Map -> RGB image for people."""

    def check(self, values: np.ndarray) -> np.ndarray:
        """Return the map as float32.

        Raises:
            ValueError: It has another shape, integer values, or values outside [0, 1].
        """
        values = np.asarray(values)
        shape = "(H, W)" if self.channels == 1 else "(H, W, 3)"
        fits = values.ndim == 2 if self.channels == 1 else values.ndim == 3 and values.shape[-1] == 3
        if not fits or values.size == 0 or values.dtype.kind != "f":
            raise ValueError(
                f"A {self.name} map is a float array {shape}; got {values.dtype} {values.shape}. "
                f"Read stored images with CONDITIONS[{self.name!r}].decode."
            )
        if not (values.min() >= 0.0 and values.max() <= 1.0):  # written so that NaN is refused
            raise ValueError(
                f"A {self.name} map has values in [0, 1]; got {values.min()} to {values.max()}. Scale it first."
            )
        return values.astype(np.float32, copy=False)


def encode_depth(depth: np.ndarray) -> Image.Image:
    """(H, W) in [0, 1] -> 16-bit gray image: 0 far, 65535 near."""
    levels = np.clip(depth, 0.0, 1.0)
    np.multiply(levels, 65535.0, out=levels)
    return Image.fromarray(np.rint(levels, out=levels).astype(np.uint16))


def decode_depth(image: Image.Image) -> np.ndarray:
    """16-bit or 8-bit gray image -> float32 (H, W) in [0, 1]."""
    if not image.mode.startswith("I"):
        return np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    return np.asarray(image).astype(np.float32) / 65535.0


def encode_8_bit(values: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, 3) in [0, 1] -> 8-bit gray or RGB image."""
    return Image.fromarray(np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8))


def decode_rgb(image: Image.Image) -> np.ndarray:
    """Image -> float32 (H, W, 3) in [0, 1]."""
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0


def gray_to_model(values: np.ndarray) -> Tensor:
    """(H, W) in [0, 1] -> (3, H, W) in [-1, 1], with the same value in every channel."""
    import torch

    gray = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)) * 2.0 - 1.0
    return gray.expand(3, -1, -1).clone()


def gray_from_model(decoded: Tensor) -> np.ndarray:
    """(3, H, W) around [-1, 1] -> float32 (H, W) in [0, 1], the mean of the channels."""
    gray = decoded.float().mean(dim=0) * 0.5 + 0.5
    return gray.clamp(0.0, 1.0).cpu().numpy()


def rgb_to_model(values: np.ndarray) -> Tensor:
    """(H, W, 3) in [0, 1] -> (3, H, W) in [-1, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).permute(2, 0, 1) * 2.0 - 1.0


def rgb_from_model(decoded: Tensor) -> np.ndarray:
    """(3, H, W) around [-1, 1] -> float32 (H, W, 3) in [0, 1]."""
    return (decoded.float() * 0.5 + 0.5).clamp(0.0, 1.0).permute(1, 2, 0).cpu().numpy()


_INFERNO = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
     (249, 201, 50), (252, 255, 164)],
    dtype=np.float32,
)  # fmt: skip
"""Nine points, dark to bright, of matplotlib's "inferno" color map (public domain, CC0)."""


def preview_depth(depth: np.ndarray) -> Image.Image:
    """(H, W) in [0, 1] -> RGB image, dark is far and bright is near."""
    position = np.clip(depth, 0.0, 1.0) * (len(_INFERNO) - 1)
    low = np.minimum(position.astype(int), len(_INFERNO) - 2)
    fraction = (position - low)[..., None]
    colors = _INFERNO[low] * (1 - fraction) + _INFERNO[low + 1] * fraction
    return Image.fromarray(np.round(colors).astype(np.uint8))


def preview_8_bit(values: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, 3) in [0, 1] -> RGB image of the map as it is stored."""
    return encode_8_bit(values).convert("RGB")


class _Codec(NamedTuple):
    """The conversions of one map format."""

    encode: Callable[[np.ndarray], Image.Image]
    decode: Callable[[Image.Image], np.ndarray]
    to_model: Callable[[np.ndarray], Tensor]
    from_model: Callable[[Tensor], np.ndarray]


_CODECS: dict[MapFormat, _Codec] = {
    "gray16": _Codec(encode_depth, decode_depth, gray_to_model, gray_from_model),
    "gray8": _Codec(encode_8_bit, decode_depth, gray_to_model, gray_from_model),
    "rgb8": _Codec(encode_8_bit, decode_rgb, rgb_to_model, rgb_from_model),
}


def _condition(kind: ConditionKind) -> Condition:
    preview = preview_depth if kind.has_color_preview else preview_8_bit
    return Condition(**asdict(kind), **_CODECS[kind.map_format]._asdict(), preview=preview)


CONDITIONS: dict[str, Condition] = {name: _condition(kind) for name, kind in CONDITION_KINDS.items()}
"""Every kind of condition by name, as in `CONDITION_KINDS`."""
