"""Conversions between PIL images and tensors, working sizes, and resizing of maps and masks."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from unicon.colors import to_srgb, upright

MAX_ASPECT = 4.0
"""Longest aspect ratio at which the model works. Longer images are squeezed to it."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any image to 8-bit sRGB, upright by its EXIF orientation, with transparency on white; see `to_srgb`."""
    return to_srgb(upright(image))


def oriented_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image after applying its EXIF orientation, without decoding it."""
    width, height = image.size
    return (height, width) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (width, height)


def working_size(image_size: tuple[int, int], *, area: int, multiple: int) -> tuple[int, int]:
    """(width, height) at which the model works on an image of `image_size`.

    Both sides are multiples of `multiple`, the area is close to `area` pixels, and the aspect ratio is the nearest one
    that these allow (up to MAX_ASPECT). So the images of a dataset have few working sizes.

    Raises:
        ValueError: A size is not positive.
    """
    width, height = image_size
    if min(width, height, area, multiple) < 1:
        raise ValueError(
            f"Sizes are positive pixels; got image {image_size}, area {area}, multiple {multiple}. Give an image."
        )
    aspect = math.log(width / height)
    return min(working_sizes(area, multiple), key=lambda size: abs(math.log(size[0] / size[1]) - aspect))


@lru_cache
def working_sizes(area: int, multiple: int) -> tuple[tuple[int, int], ...]:
    """All working sizes (width, height), the aspect buckets: 17 at 512 x 512 pixels and multiples of 64.

    Every long side up to MAX_ASPECT is there, with the short side that brings the area nearest. Compiled code is made
    for each of them, so they are few.
    """
    side = math.sqrt(area)
    sizes = []
    for step in range(max(round(side / multiple), 1), max(round(side * math.sqrt(MAX_ASPECT) / multiple), 1) + 1):
        long_side = step * multiple
        short_side = min(max(round(area / long_side / multiple), 1) * multiple, long_side)
        sizes += [(long_side, short_side), (short_side, long_side)]
    return tuple(dict.fromkeys(sizes))


def to_bytes(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Convert an RGB image to uint8 (3, height, width), resized to `size` = (width, height)."""
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalized(pixels: Tensor) -> Tensor:
    """Convert uint8 of any shape to float32 in [-1, 1], on the device of the pixels. Other pixels are in that range."""
    return pixels.float() / 127.5 - 1.0 if pixels.dtype == torch.uint8 else pixels


def to_model(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Convert an RGB image to float32 (3, height, width) in [-1, 1], resized to `size` = (width, height)."""
    return normalized(to_bytes(image, size))


def from_model(tensor: Tensor, size: tuple[int, int] | None = None) -> Image.Image:
    """Convert (3, height, width) in [-1, 1] to an 8-bit RGB image of `size` = (width, height), rounded once."""
    pixels = (tensor.float().clamp(-1.0, 1.0) + 1.0).permute(1, 2, 0).cpu().numpy() * 127.5
    if size is not None:
        pixels = resize_map(pixels, size, Image.Resampling.BICUBIC).clip(0.0, 255.0)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def resize_map(
    values: np.ndarray, size: tuple[int, int], resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    """Resize float32 (h, w) or (h, w, channels) to `size` = (width, height), antialiased when smaller."""
    if values.shape[:2] == (size[1], size[0]):
        return values
    if values.ndim == 3:
        return np.stack([resize_map(channel, size, resampling) for channel in np.moveaxis(values, -1, 0)], -1)
    return np.array(Image.fromarray(values.astype(np.float32)).resize(size, resampling))


def latent_mask(mask: np.ndarray, size: tuple[int, int], scale: int) -> Tensor:
    """Convert a mask (H, W) in [0, 1] to the mask of the latents, float32 (1, h, w).

    The result is 1 wherever any pixel is above 0, so the model paints a little more than the mask, never less.

    Args:
        mask: The mask.
        size: (width, height) at which the model works.
        scale: Pixels per latent pixel along each side.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(resize_map(mask, size)))[None]
    return (max_pool2d(pixels, scale) > 0).float()


def blend(generated: np.ndarray, kept: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend by a mask (H, W), float32: `generated` where it is 1, exactly `kept` where it is 0, a mixture between."""
    weight = mask.reshape(*mask.shape, *[1] * (kept.ndim - 2)).astype(np.float32)
    return weight * generated.astype(np.float32) + (1.0 - weight) * kept.astype(np.float32)
