"""Images of any mode and color profile -> 8-bit RGB as screens show it (sRGB), upright. No torch here."""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

MAX_PROFILE_BYTES = 16 << 20
PROFILES_KEPT = 8
"""Transforms of this many profiles are kept; most datasets have two or three."""
SRGB_TOLERANCE = 3
"""Of 255. A profile that changes no color by more is sRGB under another name, and the pixels stay as they are."""
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""Mode of the pixels -> color space that their profile must be of."""


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; EXIF that cannot be read says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (Exception, struct.error):  # Pillow raises nearly any type on broken EXIF
        return image.copy()


def to_srgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Any Pillow mode -> 8-bit RGB in sRGB, by the color profile where there is one; transparency on `background`.

    16-bit gray keeps its upper 8 bits; 32-bit integer gray counts as 16-bit when it exceeds 255; float gray counts as
    [0, 1] unless it exceeds 1, NaN as black. A profile that is damaged, or of another color space than the pixels, is
    ignored.

    Raises:
        ValueError: not one value of a float image is finite.
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
    if not has_profile and image.mode != "LAB":  # of which Pillow leaves a profile on the result
        return image.convert("RGB")
    return _in_srgb(image if image.mode in ("L", "CMYK") else image.convert("RGB"), image.info.get("icc_profile", b""))


def _with_srgb_colors(rgba: Image.Image, image: Image.Image) -> Image.Image:
    """The RGBA pixels of an image with their colors converted by its profile."""
    mode = "L" if image.mode in ("L", "LA", "La") else "RGB"
    colors = _in_srgb(rgba.convert("RGB").convert(mode), image.info["icc_profile"])
    colors.putalpha(rgba.getchannel("A"))
    return colors


def _in_srgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """RGB, L or CMYK pixels of a profile, the image's own by default, as RGB. A profile that is left on it is sRGB."""
    profile = image.info["icc_profile"] if profile is None else profile
    transform = _transform(profile, image.mode) if len(profile) <= MAX_PROFILE_BYTES else None
    if transform is _UNCHANGED and image.mode == "RGB":
        return image
    is_converting = isinstance(transform, ImageCms.ImageCmsTransform)
    converted = ImageCms.applyTransform(image, transform) if is_converting else image.convert("RGB")
    assert converted is not None  # which is for conversions in place
    converted.info.pop("icc_profile", None)  # it describes the pixels as they were, or was added by Pillow
    return converted


_UNCHANGED = object()


@lru_cache(PROFILES_KEPT)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | object | None:
    """From pixels of a mode to sRGB; _UNCHANGED where they are in sRGB; None for what is no profile of such pixels."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
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
    """A grid of all colors of RGB, or all grays."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(64, 64, 3))


def _gray_levels(values: np.ndarray) -> np.ndarray:
    levels = np.nan_to_num(values.astype(np.float32), posinf=np.inf, neginf=0.0)
    most = levels.max(initial=0.0, where=np.isfinite(levels))  # a single infinite pixel says nothing of the range
    if values.dtype.kind == "f":
        if not np.isfinite(values).any():
            raise ValueError("no pixel of the image is a finite number")
        scale = 255.0 if most <= 1.0 else 1.0
    else:
        scale = 1.0 / 257.0 if values.dtype.itemsize == 2 or most > 255 else 1.0
    return np.clip(np.round(levels * scale), 0, 255).astype(np.uint8)
