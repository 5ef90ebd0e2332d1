"""Stored bytes <-> pixels, with limits. No torch here: these run in the CPU workers."""

import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from pipelines.errors import SampleError

KEPT_FORMATS = frozenset({"JPEG", "PNG", "WEBP"})
"""Stored as they came; every viewer shows them. Others are stored again as PNG."""
NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
PNG_COMPRESSION = 1
"""Of 0 to 9: on depth maps level 6 takes several times as long for a few per cent."""

PACKED = pa.struct(
    [("mode", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("pixels", pa.large_binary())]
)
"""A decoded picture that travels between stages."""


def open_picture(content: bytes, max_pixels: int, background: str = "white") -> tuple[Image.Image, str]:
    """Decode to 8-bit RGB, upright, transparency over `background`; returns the picture and its stored format.

    Of several frames the first counts.

    Raises:
        SampleError: not a picture, broken, or more than `max_pixels` pixels (checked before decoding).
    """
    upright, stored_format = _decode(content, max_pixels)
    return to_rgb(upright, background), stored_format


def open_map(content: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    """Decode a condition or a mask: 16-bit grey stays that, 8-bit grey too, all else becomes 8-bit RGB.

    Raises:
        SampleError: as `open_picture`, or numbers that no 16-bit grey holds.
    """
    upright, stored_format = _decode(content, max_pixels)
    return _to_map(upright), stored_format


def _decode(content: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    """The upright picture in its own mode, and its format."""
    with _pixel_limit(max_pixels):
        try:
            with Image.open(BytesIO(content), formats=_formats()) as image:
                stored_format = image.format or ""
                if image.width * image.height > max_pixels:
                    raise SampleError(
                        "decode", f"{image.width} x {image.height} pixels exceed --max-pixels {max_pixels}"
                    )
                image.load()
                upright = _upright(image)
        except SampleError:
            raise
        except Image.DecompressionBombError as error:
            raise SampleError("decode", f"more pixels than --max-pixels {max_pixels}: {error}") from error
        except Image.UnidentifiedImageError as error:
            raise SampleError("decode", f"not a picture that Pillow can read ({_first_bytes(content)})") from error
        except (Exception, struct.error) as error:  # Pillow's decoders raise nearly any type on broken bytes
            raise SampleError("decode", f"broken picture: {type(error).__name__}: {error}") from error
    if min(upright.size) < 2:
        raise SampleError("decode", f"{upright.width} x {upright.height} pixels are too few")
    return upright, stored_format


def _to_map(image: Image.Image) -> Image.Image:
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return to_rgb(image)
    values = np.asarray(image)
    scale, most = (65535.0, 1.0) if image.mode == "F" else (1.0, 65535)
    if not (values.min() >= 0 and values.max() <= most):
        raise SampleError("decode", f"a map has values of 0 to {most:g}; this one has {values.min()} to {values.max()}")
    return Image.fromarray(np.round(values * scale).astype(np.uint16))


@cache
def _formats() -> tuple[str, ...]:
    """What Pillow opens, without the formats for which it would run another program or has no decoder of its own."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - NOT_DECODED))


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; EXIF that cannot be read says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (Exception, struct.error):  # Pillow raises nearly any type on broken EXIF
        return image.copy()


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Any Pillow mode -> 8-bit RGB; the rules of `unicon.images.to_rgb`, without its torch."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey_levels(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")
    return image.convert("RGB")


def shrunk_size(size_px: tuple[int, int], max_area_px: int) -> tuple[int, int]:
    """(width, height), scaled down to at most `max_area_px` pixels when there are more; the aspect ratio stays."""
    width, height = size_px
    ratio = (max_area_px / (width * height)) ** 0.5
    return size_px if ratio >= 1 else (max(1, int(width * ratio)), max(1, int(height * ratio)))


def shrink(image: Image.Image, max_area_px: int) -> Image.Image:
    """The RGB picture, scaled down to at most `max_area_px` pixels when it has more."""
    size = shrunk_size(image.size, max_area_px)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def resize_map(image: Image.Image, size_px: tuple[int, int]) -> Image.Image:
    """A map of any mode of `open_map` at (width, height), bilinear."""
    if image.size == size_px:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray(resize_levels(np.asarray(image), size_px))
    return image.resize(size_px, Image.Resampling.BILINEAR)


def pack(image: Image.Image) -> dict[str, Any]:
    """A picture of mode RGB, L or I;16 as a value of PACKED."""
    return {"mode": image.mode, "width": image.width, "height": image.height, "pixels": image.tobytes()}


def unpack(packed: Mapping[str, Any]) -> Image.Image:
    """The inverse of `pack`."""
    return Image.frombytes(packed["mode"], (packed["width"], packed["height"]), packed["pixels"])


def stored(image: Image.Image, name: str) -> dict[str, Any]:
    """A picture as a PNG for a media column, called NAME.png there."""
    return {"bytes": png_bytes(image), "path": f"{name}.png"}


def stored_bytes(content: bytes, name: str) -> dict[str, Any]:
    """An encoded picture for a media column, called NAME and its usual extension there."""
    return {"bytes": content, "path": f"{name}.{extension_of(content)}"}


def extension_of(content: bytes) -> str:
    """The usual extension of a picture in one of KEPT_FORMATS, by its first bytes."""
    return "jpg" if content.startswith(b"\xff\xd8") else "webp" if content[8:12] == b"WEBP" else "png"


def to_grey(image: Image.Image) -> Image.Image:
    """A map of any mode of `open_map` as 8-bit grey, 16-bit grey by its upper bits."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L")


def kept_or_png(content: bytes, image: Image.Image, stored_format: str) -> bytes:
    """The file as it came where every viewer shows its format, else the picture as PNG."""
    return content if stored_format in KEPT_FORMATS else png_bytes(image)


def png_bytes(image: Image.Image) -> bytes:
    """The picture as PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()


def depth_levels(depth: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> uint16: 0 far, 65535 near."""
    return np.round(np.clip(depth, 0.0, 1.0) * 65535.0).astype(np.uint16)


def resize_levels(levels: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """uint16 (H, W) -> uint16 of `size_px` = (width, height), bilinear."""
    if levels.shape == (size_px[1], size_px[0]):
        return levels
    resized = Image.fromarray(levels.astype(np.float32)).resize(size_px, Image.Resampling.BILINEAR)
    return np.clip(np.round(np.asarray(resized)), 0, 65535).astype(np.uint16)


def _grey_levels(values: np.ndarray) -> np.ndarray:
    """16-bit grey, integers above 255 included, keeps its upper bits; floats count as [0, 1] unless they exceed 1."""
    levels = np.nan_to_num(values.astype(np.float32))
    if values.dtype.kind == "f":
        scale = 255.0 if levels.max(initial=0.0) <= 1.0 else 1.0
    else:
        scale = 1.0 / 257.0 if values.dtype.itemsize == 2 or levels.max(initial=0.0) > 255 else 1.0
    return np.clip(np.round(levels * scale), 0, 255).astype(np.uint8)


def _first_bytes(content: bytes) -> str:
    return f"{len(content)} bytes that begin with {content[:8]!r}"


@contextmanager
def _pixel_limit(max_pixels: int) -> Iterator[None]:
    """Pillow's own limit raised to ours, and put back. It refuses at twice its value and warns before."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about strange files; what matters raises
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
