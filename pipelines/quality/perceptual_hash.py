"""Perceptual hash and signature of an image: what remains of it after compression, scaling and small crops.

The low frequencies of an image survive JPEG and scaling. The hash consists of the signs of their coefficients in the
discrete cosine transform (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010,
https://www.phash.org/docs/pubs/thesis_zauner.pdf). The signature keeps the coefficients themselves with 8 bits each, so
that `near_duplicates` can compute those of any crop of the image, and its mean color.

Shapes: N images, F frequencies along each axis.

Tested in tests/pipelines/quality/test_near_duplicates.py.
"""

import numpy as np
from PIL import Image
from scipy import fft

GRID_PX = 64
"""Side of the square to which an image is scaled, whatever its aspect ratio."""
FREQUENCIES = 16
"""F."""
MIN_CONTRAST = 2.0
"""Standard deviation in gray levels, below which an image has no structure to compare."""
SIGNATURE_BYTES = FREQUENCIES**2 + 3

_ROW, _COLUMN = np.indices((FREQUENCIES, FREQUENCIES))
WHITENING = (1.0 + _ROW + _COLUMN).astype(np.float32)
"""(F, F) weights that make the coefficients of natural images similar in size."""


def signature(image: Image.Image) -> bytes:
    """Return the signature of an upright RGB image: F x F coefficients as int8, then the mean color as uint8.

    The coefficients are all zero if the image has no structure; such images have no near duplicates.
    """
    pixels = image.convert("RGB").resize((GRID_PX, GRID_PX), Image.Resampling.BILINEAR)
    color = np.asarray(pixels, np.float64).mean((0, 1)).round().astype(np.uint8)
    gray = np.asarray(pixels.convert("L"), np.float64)
    levels = np.zeros((FREQUENCIES, FREQUENCIES), np.int8)
    if gray.std() >= MIN_CONTRAST:
        coefficients = np.asarray(fft.dctn(gray, norm="ortho"))[:FREQUENCIES, :FREQUENCIES] * WHITENING
        coefficients[0, 0] = 0.0  # the brightness, which is in the mean color
        relative = coefficients / np.abs(coefficients).max()
        levels = np.round(127 * np.sign(relative) * np.sqrt(np.abs(relative))).astype(np.int8)
    return levels.tobytes() + color.tobytes()


def phash(image: Image.Image) -> bytes:
    """Return the perceptual hash of an upright RGB image, 256 bits: which low frequencies have a positive sign."""
    return hash_of(signature(image))


def hash_of(content: bytes) -> bytes:
    """Return the perceptual hash that belongs to a signature."""
    levels = np.frombuffer(content, np.int8, FREQUENCIES**2)
    return np.packbits(levels > 0).tobytes()


def coefficients(signatures: np.ndarray) -> np.ndarray:
    """Return the coefficients (N, F, F) float32 of signatures (N, SIGNATURE_BYTES) uint8, up to a factor per image."""
    levels = signatures[:, : FREQUENCIES**2].view(np.int8).astype(np.float32) / 127
    relative = np.sign(levels) * levels**2
    return relative.reshape(-1, FREQUENCIES, FREQUENCIES) / WHITENING


def mean_colors(signatures: np.ndarray) -> np.ndarray:
    """Return the mean colors (N, 3) uint8 of signatures (N, SIGNATURE_BYTES) uint8."""
    return signatures[:, FREQUENCIES**2 :]
