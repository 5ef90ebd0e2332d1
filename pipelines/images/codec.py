"""Decoding and encoding of stored images, with limits. Runs in the CPU workers, so it does not import torch."""

import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.errors import SampleError, clipped
from pipelines.images.containers import IMAGE_EXTENSIONS, extension_of, first_image, fitting_name
from pipelines.images.png import png_bytes
from pipelines.images.signatures import kind_of
from unicon.colors import to_srgb, upright
from unicon.image_metadata import without_metadata

KEPT_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
"""Formats that are stored unchanged because every viewer shows them (of MPO the first JPEG). Others become PNG."""
NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})

PACKED = pa.struct(
    [("mode", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("pixels", pa.large_binary())]
)
"""Arrow type of a decoded image that is passed between stages."""


class Opened(NamedTuple):
    """An image file, decoded."""

    image: Image.Image
    content: bytes
    """The bytes to store: the original file if every viewer shows its format, otherwise the image as PNG."""
    size_px: tuple[int, int]
    """(width, height) of the stored image; `image` may be smaller."""


class TooManyPixelsError(SampleError):
    """The image is larger than a limit allows."""


class _Decoded(NamedTuple):
    image: Image.Image
    """Upright, in its own mode."""
    format: str
    kept: bytes | None
    """The file, or the part of it that is the image; None if the image must be encoded again."""


def open_image(content: bytes, max_pixels: int, background: str = "white") -> tuple[Image.Image, str]:
    """Decode an image to upright 8-bit sRGB, with transparent pixels over `background`. Uses the first frame.

    Returns:
        The image and its stored format.

    Raises:
        SampleError: the bytes are not an image, are broken, or have more than `max_pixels` pixels (checked before
            decoding).
    """
    decoded = _decode(content, max_pixels)
    return to_srgb(decoded.image, background), decoded.format


def open_small(content: bytes, max_pixels: int, side_px: int) -> Image.Image:
    """Decode as `open_image` does, but smaller if that costs less: a JPEG with sides of at least `side_px`."""
    return to_srgb(_decode(content, max_pixels, side_px).image)


def open_map(content: bytes, max_pixels: int) -> tuple[Image.Image, str]:
    """Decode a condition or a mask. 16-bit and 8-bit gray stay as they are; everything else becomes 8-bit RGB.

    Raises:
        SampleError: as in `open_image`, or the values do not fit into 16-bit gray.
    """
    decoded = _decode(content, max_pixels)
    return _to_map(decoded.image), decoded.format


def open_and_keep(content: bytes, max_pixels: int, max_area_px: int) -> Opened:
    """Decode as `open_image` does, scale down to at most `max_area_px` pixels, and return the bytes to store too."""
    decoded = _decode(content, max_pixels)
    size_px = decoded.image.size
    if decoded.kept is None:
        image = to_srgb(decoded.image)
        return Opened(shrink(image, max_area_px), png_bytes(image), size_px)
    if decoded.image.mode == "RGB" and "transparency" not in decoded.image.info:  # converting fewer pixels costs less
        return Opened(to_srgb(shrink(decoded.image, max_area_px)), decoded.kept, size_px)
    return Opened(shrink(to_srgb(decoded.image), max_area_px), decoded.kept, size_px)


def open_and_keep_map(content: bytes, max_pixels: int) -> Opened:
    """Decode as `open_map` does, and return the bytes to store too."""
    decoded = _decode(content, max_pixels)
    image = _to_map(decoded.image)
    return Opened(image, png_bytes(image) if decoded.kept is None else decoded.kept, image.size)


def _decode(content: bytes, max_pixels: int, draft_px: int | None = None) -> _Decoded:
    """Decode an image, without its metadata if only that cannot be read; see `open_small` for `draft_px`."""
    with _pixel_limit(max_pixels):
        try:
            return _decode_as_is(content, max_pixels, draft_px)
        except TooManyPixelsError:
            raise
        except SampleError as error:
            problem = error
        for less, profile in without_metadata(content):
            try:
                decoded = _decode_as_is(less, max_pixels, draft_px)
            except TooManyPixelsError:
                raise
            except SampleError:
                continue
            if profile is None:
                return decoded
            decoded.image.info["icc_profile"] = profile
            return decoded._replace(kept=None)
        raise problem


def _decode_as_is(content: bytes, max_pixels: int, draft_px: int | None) -> _Decoded:
    try:
        with Image.open(BytesIO(content), formats=_formats()) as image:
            stored_format = image.format or ""
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(
                    "decode", f"{image.width} x {image.height} pixels exceed --max-pixels {max_pixels}"
                )
            if draft_px is not None:
                image.draft(None, (draft_px, draft_px))
            image.load()
            decoded = upright(image)
            kept = first_image(content, image) if stored_format == "MPO" else content
    except SampleError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError("decode", f"more pixels than --max-pixels {max_pixels}: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise SampleError("decode", f"not an image that Pillow can read ({_first_bytes(content)})") from error
    except (Exception, struct.error) as error:  # Pillow's decoders raise nearly any type on broken bytes
        raise SampleError("decode", f"broken image: {type(error).__name__}: {clipped(str(error))}") from error
    if min(decoded.size) < 2:
        raise SampleError("decode", f"{decoded.width} x {decoded.height} pixels are too few")
    if decoded.mode == "F" and not np.isfinite(np.asarray(decoded)).any():
        raise SampleError("decode", "no pixel of the image is a finite number")
    return _Decoded(decoded, stored_format, kept if stored_format in KEPT_FORMATS else None)


def _to_map(image: Image.Image) -> Image.Image:
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return to_srgb(image)
    values = np.asarray(image)
    scale, most = (65535.0, 1.0) if image.mode == "F" else (1.0, 65535)
    if not (values.min() >= 0 and values.max() <= most):
        raise SampleError("decode", f"a map has values of 0 to {most:g}; this one has {values.min()} to {values.max()}")
    return Image.fromarray(np.round(values * scale).astype(np.uint16))


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that Pillow decodes by itself, without running another program."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - NOT_DECODED))


def shrunk_size(size_px: tuple[int, int], max_area_px: int) -> tuple[int, int]:
    """Return (width, height), scaled down to at most `max_area_px` pixels if there are more. Keeps the aspect ratio."""
    width, height = size_px
    ratio = (max_area_px / (width * height)) ** 0.5
    return size_px if ratio >= 1 else (max(1, int(width * ratio)), max(1, int(height * ratio)))


def shrink(image: Image.Image, max_area_px: int) -> Image.Image:
    """Scale an RGB image down to at most `max_area_px` pixels if it has more."""
    size = shrunk_size(image.size, max_area_px)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def resize_map(image: Image.Image, size_px: tuple[int, int]) -> Image.Image:
    """Resize a map of any mode of `open_map` to (width, height), bilinearly."""
    if image.size == size_px:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray(resize_levels(np.asarray(image), size_px))
    return image.resize(size_px, Image.Resampling.BILINEAR)


def pack(image: Image.Image) -> dict[str, Any]:
    """Convert an image of mode RGB, L or I;16 to a value of type PACKED."""
    return {"mode": image.mode, "width": image.width, "height": image.height, "pixels": image.tobytes()}


def unpack(packed: Mapping[str, Any]) -> Image.Image:
    """Invert `pack`."""
    return Image.frombytes(packed["mode"], (packed["width"], packed["height"]), packed["pixels"])


def stored(image: Image.Image, name: str) -> dict[str, Any]:
    """Return an image as a PNG for a media column, with the name NAME.png."""
    return {"bytes": png_bytes(image), "path": f"{name}.png"}


def stored_bytes(content: bytes, name: str) -> dict[str, Any]:
    """Return an encoded image for a media column, named NAME with its usual extension."""
    return {"bytes": content, "path": f"{name}.{extension_of(content)}"}


def file_name(name: str, content: bytes) -> str:
    """Return the name of a stored image: that of its file, with an extension that matches the content."""
    return fitting_name(name, content, IMAGE_EXTENSIONS)


def to_gray(image: Image.Image) -> Image.Image:
    """Convert a map of any mode of `open_map` to 8-bit gray; 16-bit gray keeps its upper bits."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L")


def depth_levels(depth: np.ndarray) -> np.ndarray:
    """Convert depth (H, W) in [0, 1] to uint16: 0 is far, 65535 is near."""
    return np.round(np.clip(depth, 0.0, 1.0) * 65535.0).astype(np.uint16)


def resize_levels(levels: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Resize uint16 (H, W) bilinearly to `size_px` = (width, height)."""
    if levels.shape == (size_px[1], size_px[0]):
        return levels
    resized = Image.fromarray(levels.astype(np.float32)).resize(size_px, Image.Resampling.BILINEAR)
    return np.clip(np.round(np.asarray(resized)), 0, 65535).astype(np.uint16)


def _first_bytes(content: bytes) -> str:
    kind = kind_of(content)
    return f"{f'it is {kind}; ' if kind else ''}{len(content)} bytes that begin with {content[:8]!r}"


@contextmanager
def _pixel_limit(max_pixels: int) -> Iterator[None]:
    """Set Pillow's own limit temporarily. Pillow refuses images at twice its value and warns before that."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about odd files; real problems raise
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
