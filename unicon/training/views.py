"""Parts of images and of their conditions for training: one transform for both. Imports no torch.

All rows of a training step have one working size. Either images are grouped by their shape into aspect buckets, or
every step has a random shape (the published recipe). A row's part is the largest one of that shape, or a random one a
little smaller, mirrored or not. What mirroring means for a condition is in `unicon.training.mirrors`.

Shapes: H W pixels of the working size.

Source: arXiv 2410.11439, appendix A (random aspect ratio at constant area, random flip).
Tested in tests/unicon/training/test_views.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from unicon.conditions import CONDITIONS
from unicon.training.mirrors import RECOLORED
from unicon.working_sizes import working_size

KEPT_SIDE = 1.5
"""Images are read with a shorter side of this many times the resolution, so that parts of them stay sharp."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """How parts of images are drawn in training. The defaults are those of the published recipe, with a slight zoom.

    Raises:
        ValueError: A value is out of its range.
    """

    resolution_px: int
    """Side of the square whose area every working size has."""
    multiple: int
    """Number of pixels of which all sides are multiples."""
    aspect_buckets: bool = False
    """Whether a row has the working size that is nearest to its image's shape. If not, every step has a random one."""
    max_aspect: float = 2.0
    """Random aspect ratios lie between 1 / this and this, uniformly in the logarithm."""
    random_crop: bool = True
    """Whether the part of an image is random. If not, it is the largest one, in the middle."""
    min_crop: float = 0.8
    """A random part is the largest one of the aspect ratio, scaled by a random factor between this and 1."""
    flip_probability: float = 0.5
    """Probability that an image and its conditions are mirrored."""

    def __post_init__(self) -> None:
        good = self.max_aspect >= 1 and 0 < self.min_crop <= 1 and 0 <= self.flip_probability <= 1
        if not good or min(self.resolution_px, self.multiple) < 1:
            raise ValueError(
                "Views need a positive resolution_px and multiple, max_aspect of at least 1, min_crop in (0, 1] and "
                f"flip_probability in [0, 1]; got {self}. Correct the value."
            )

    @property
    def kept_side_px(self) -> int:
        """Shorter side at which images are read."""
        return round(self.resolution_px * KEPT_SIDE)

    def size_of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The working size (width, height) nearest to the shape of an image."""
        return working_size(image_size, area=self.resolution_px**2, multiple=self.multiple)

    def random_size(self, chance: float) -> tuple[int, int]:
        """The working size (width, height) that belongs to a random number in [0, 1)."""
        return self.size_of((round(1000 * self.max_aspect ** (2 * chance - 1)), 1000))

    def view(self, size: tuple[int, int], chances: np.ndarray) -> View:
        """The view of a working size that belongs to four random numbers in [0, 1)."""
        zoom, left, top, flip = chances.tolist()
        mirrored = flip < self.flip_probability
        if not self.random_crop:
            return View(size, 1.0, 0.5, 0.5, mirrored)
        return View(size, 1 - zoom * (1 - self.min_crop), left, top, mirrored)


class View(NamedTuple):
    """The part of a row that a step sees."""

    size: tuple[int, int]
    """(width, height) of the result in pixels."""
    zoom: float = 1.0
    """1 for the largest part of that shape, less for a smaller one."""
    left: float = 0.5
    """Horizontal position of the part in the remaining space, 0 to 1."""
    top: float = 0.5
    """Vertical position of the part in the remaining space, 0 to 1."""
    mirrored: bool = False


@dataclass(frozen=True)
class PairRow:
    """One image with its conditions."""

    key: str
    """Name of the row, unique in its data."""
    image: Image.Image
    """Upright RGB."""
    maps: Mapping[str, Image.Image]
    """Adapter -> the stored image of its condition (see `unicon.conditions`), with the shape of the image."""
    caption: str = ""
    weight: float = 1.0
    """Factor of the row's loss; 0 or more."""


@dataclass(frozen=True)
class ViewedRow:
    """A view of a row."""

    key: str
    image: np.ndarray
    """(H, W, 3) uint8."""
    maps: Mapping[str, np.ndarray]
    """Adapter -> (H, W) or (H, W, 3), uint8, or uint16 for kinds that are stored with 16 bits."""
    caption: str = ""
    weight: float = 1.0
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


def view_row(row: PairRow, view: View, kinds: Mapping[str, str]) -> ViewedRow:
    """The same part of a row's image and of its maps.

    Args:
        row: The row.
        view: The part.
        kinds: Adapter -> its kind of condition. Maps of other adapters are left out.

    Raises:
        KeyError: The row has no map of an adapter.
    """
    image = _part(row.image, view, Image.Resampling.BICUBIC)
    maps = {name: view_map(row.maps[name], view, kind) for name, kind in kinds.items()}
    return ViewedRow(row.key, image, maps, row.caption, row.weight, view.mirrored)


def view_map(stored: Image.Image, view: View, kind: str) -> np.ndarray:
    """The part of a stored map: uint8 (H, W) or (H, W, 3), or uint16 (H, W); mirrored as its kind requires."""
    known = CONDITIONS.get(kind)
    if known is not None and known.channels == 1:
        part = _part(Image.fromarray(known.decode(stored)), view, Image.Resampling.BILINEAR)
        dtype = np.uint16 if known.map_format == "gray16" else np.uint8
        return np.rint(part * np.iinfo(dtype).max).astype(dtype)
    colors = stored.convert("RGB")
    if view.mirrored and kind in RECOLORED:
        colors = Image.fromarray(RECOLORED[kind](np.asarray(colors)))
    return _part(colors, view, Image.Resampling.BILINEAR)


def _part(image: Image.Image, view: View, resampling: Image.Resampling) -> np.ndarray:
    left, top, right, bottom = crop_box(image.size, view)
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    part = np.asarray(image.resize(view.size, resampling, box=box))
    return np.ascontiguousarray(part[:, ::-1] if view.mirrored else part)


def crop_box(image_size: tuple[int, int], view: View) -> tuple[float, float, float, float]:
    """The part of an image of (width, height), as fractions (left, top, right, bottom) of its sides."""
    aspect = (view.size[0] / view.size[1]) / (image_size[0] / image_size[1])
    width, height = view.zoom * min(1.0, aspect), view.zoom * min(1.0, 1 / aspect)
    x, y = view.left * (1 - width), view.top * (1 - height)
    return x, y, min(1.0, x + width), min(1.0, y + height)
