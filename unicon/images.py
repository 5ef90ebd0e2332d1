"""Conversions between PIL images and tensors, and resizing of maps and masks."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from unicon.colors import to_srgb, upright


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any image to 8-bit sRGB, upright by its EXIF orientation, with transparency on white; see `to_srgb`."""
    return to_srgb(upright(image))


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
