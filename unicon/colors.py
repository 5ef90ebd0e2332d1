"""Converting images of any mode and color profile to upright 8-bit sRGB. Imports no torch."""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

MAX_PROFILE_BYTES = 16 << 20
"""Larger profiles are ignored."""
PROFILES_KEPT = 8
"""Number of profiles whose transforms are cached. Most datasets have two or three."""
SRGB_TOLERANCE = 3
"""A profile that changes no color by more than this, of 255, counts as sRGB, and the pixels do not change."""
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""Mode of the pixels -> color space that their profile must have."""


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of an image. EXIF that cannot be read is ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except (Exception, struct.error):  # Pillow raises errors of nearly any type for broken EXIF
        return image.copy()


def oriented_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image after applying its EXIF orientation, without decoding it."""
    width, height = image.size
    return (height, width) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (width, height)


def to_srgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Convert an image of any Pillow mode to 8-bit sRGB, using its color profile, with transparency on `background`.

    16-bit gray keeps its upper 8 bits. 32-bit integer gray counts as 16-bit if it exceeds 255. Float gray counts as
    [0, 1] unless it exceeds 1, and NaN as black. A profile that is damaged or has another color space than the pixels
    is ignored.

    Raises:
        ValueError: No value of a float image is finite.
    """
    has_profile = bool(image.info.get("icc_profile"))
    if image.mode == "RGB" and "transparency" not in image.info:
        return _in_srgb(image) if has_profile else image
    if image.mode.startswith("I") or image.mode == "F":
        levels = Image.fromarray(_gray_levels(np.asarray(image)))
        return _in_srgb(levels, image.info["icc_profile"]) if has_profile else levels.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if has_profile:
            rgba = _with_srgb_colors(rgba, image)
        return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")
    if not has_profile and image.mode != "LAB":  # converting LAB, Pillow leaves a profile on the result
        return image.convert("RGB")
    return _in_srgb(image if image.mode in ("L", "CMYK") else image.convert("RGB"), image.info.get("icc_profile", b""))


def _with_srgb_colors(rgba: Image.Image, image: Image.Image) -> Image.Image:
    """The RGBA pixels of an image with their colors converted by its profile."""
    mode = "L" if image.mode in ("L", "LA", "La") else "RGB"
    colors = _in_srgb(rgba.convert("RGB").convert(mode), image.info["icc_profile"])
    colors.putalpha(rgba.getchannel("A"))
    return colors


def _in_srgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """Convert RGB, L or CMYK pixels to sRGB by a profile, by default that of the image."""
    content: bytes = image.info["icc_profile"] if profile is None else profile
    transform = _transform(content, image.mode) if len(content) <= MAX_PROFILE_BYTES else None
    if transform is _UNCHANGED and image.mode == "RGB":
        return image
    is_converting = isinstance(transform, ImageCms.ImageCmsTransform)
    converted = ImageCms.applyTransform(image, transform) if is_converting else image.convert("RGB")
    assert converted is not None  # None is returned for conversions in place only
    converted.info.pop("icc_profile", None)  # it describes the original pixels, or was added by Pillow
    return converted


_UNCHANGED = object()


@lru_cache(PROFILES_KEPT)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | object | None:
    """The transform of pixels of a mode to sRGB; _UNCHANGED if they are in sRGB; None if the profile does not fit."""
    try:
        opened: Any = ImageCms.ImageCmsProfile(BytesIO(profile))  # Pillow does not declare its attributes
        if opened.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        before = _all_colors(mode)
        after = np.asarray(ImageCms.applyTransform(before, transform)).astype(int)
        is_srgb = np.abs(after - np.asarray(before.convert("RGB"))).max() <= SRGB_TOLERANCE
        return _UNCHANGED if is_srgb else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _all_colors(mode: str) -> Image.Image:
    """A grid over all colors of RGB, or all grays."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(64, 64, 3))


def _gray_levels(values: np.ndarray) -> np.ndarray:
    levels = np.nan_to_num(values.astype(np.float32), posinf=np.inf, neginf=0.0)
    most = levels.max(initial=0.0, where=np.isfinite(levels))  # infinite pixels say nothing about the range
    if values.dtype.kind == "f":
        if not np.isfinite(values).any():
            raise ValueError("no pixel of the image is a finite number")
        scale = 255.0 if most <= 1.0 else 1.0
    else:
        scale = 1.0 / 257.0 if values.dtype.itemsize == 2 or most > 255 else 1.0
    return np.clip(np.round(levels * scale), 0, 255).astype(np.uint8)
