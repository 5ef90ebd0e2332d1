"""Training pairs of photographs: random parts of images and of their conditions, encoded on the fly.

All pairs of a step have one working size. A step reads its images again, so that memory does not grow with the
collection.

Shapes: B pairs, H W pixels of the working size, c h w latents.

Source: arXiv 2410.11439, appendix A (random aspect ratio at constant area, random flip).
Tested in tests/unicon/training/test_photographs.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from PIL import Image, ImageOps
from torch import Tensor

from unicon.autoencoders import Autoencoder
from unicon.images import to_model
from unicon.training.pairs import DrawnPairs, encode_latents
from unicon.training.photographs import Photograph, read_image
from unicon.training.single_step import DrawnMaps
from unicon.working_sizes import working_size

KEPT_SIDE = 1.5
"""Images are read with a shorter side of this many times the resolution, so that parts of them stay sharp."""
ENCODED_TOGETHER = 8
"""Number of images encoded in one batch."""


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
    max_aspect: float = 2.0
    """Aspect ratios are drawn between 1 / this and this, uniformly in the logarithm, one per step."""
    min_crop: float = 0.8
    """The part of an image is the largest one of the aspect ratio, scaled by a random factor between this and 1."""
    flip_probability: float = 0.5
    """Probability that an image and its condition are mirrored. 0 where a mirrored condition is wrong (poses)."""

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


class PhotographPairs:
    """A `PairSource` that draws pairs of photographs and encodes them on the fly."""

    def __init__(self, photographs: Sequence[Photograph], vae: Autoencoder, views: Views) -> None:
        self.photographs, self.vae, self.views = list(photographs), vae, views
        self._pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))  # PIL decodes and resizes without the GIL

    def draw(self, generator: torch.Generator, batch_size: int) -> DrawnPairs:
        """Draw scaled latents (B, c, h, w) of images and of conditions, and captions."""
        images, conditions, captions = self.draw_pixels(generator, batch_size)
        latents = self.encode(torch.cat([images, conditions]))
        return DrawnPairs(latents[:batch_size], latents[batch_size:], captions)

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode (S, 3, H, W) in [-1, 1] to scaled latents (S, c, h, w)."""
        with torch.autocast(self.vae.device.type, enabled=False):
            return encode_latents(self.vae, pixels.to(self.vae.dtype), ENCODED_TOGETHER)

    def draw_pixels(self, generator: torch.Generator, batch_size: int) -> tuple[Tensor, Tensor, list[str]]:
        """Draw images and conditions (B, 3, H, W) in [-1, 1] of one working size, and captions."""
        size = random_size(self.views, generator)
        chosen = torch.randint(len(self.photographs), (batch_size,), generator=generator).tolist()
        chances = torch.rand(batch_size, 4, generator=generator).tolist()
        photographs = [self.photographs[index] for index in chosen]
        views = self._pool.map(lambda photograph, chance: self._view(photograph, size, chance), photographs, chances)
        images, conditions = zip(*views, strict=True)
        return torch.stack(images), torch.stack(conditions), [photograph.caption for photograph in photographs]

    def _view(self, photograph: Photograph, size: tuple[int, int], chances: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The same random part of an image and of its condition, (3, H, W) each."""
        zoom, left, top, flip = chances
        parts = []
        box: tuple[float, ...] = ()
        for path, resample in (
            (photograph.image, Image.Resampling.BICUBIC),
            (photograph.condition, Image.Resampling.BILINEAR),
        ):
            image = read_image(path, self.views.kept_side_px)
            if not box:
                box = crop_box(image.size, size, 1 - zoom * (1 - self.views.min_crop), left, top)
            left_px, top_px, right_px, bottom_px = (
                fraction * side for fraction, side in zip(box, (*image.size, *image.size), strict=True)
            )
            part = image.resize(size, resample, box=(left_px, top_px, right_px, bottom_px))
            parts.append(to_model(ImageOps.mirror(part) if flip < self.views.flip_probability else part, size))
        return parts[0], parts[1]


class PhotographMaps:
    """A `MapSource` that draws the pairs of one adapter. Their maps are not encoded."""

    def __init__(self, pairs: PhotographPairs, adapter: str) -> None:
        self.pairs, self.adapter = pairs, adapter

    def draw_maps(self, generator: torch.Generator, batch_size: int) -> DrawnMaps:
        """See `MapSource`."""
        images, maps, captions = self.pairs.draw_pixels(generator, batch_size)
        return DrawnMaps(self.pairs.encode(images), {}, {self.adapter: maps}, captions)


def random_size(views: Views, generator: torch.Generator) -> tuple[int, int]:
    """Draw a working size (width, height) of constant area."""
    exponent = 2 * float(torch.rand((), generator=generator)) - 1
    aspect = views.max_aspect**exponent
    return working_size((round(1000 * aspect), 1000), area=views.resolution_px**2, multiple=views.multiple)


def crop_box(
    image_size: tuple[int, int], size: tuple[int, int], zoom: float, left: float, top: float
) -> tuple[float, float, float, float]:
    """A part of an image with the aspect ratio of `size`, as fractions (left, top, right, bottom) of its sides.

    Args:
        image_size: (width, height) of the image.
        size: (width, height) that has the aspect ratio of the part.
        zoom: 1 for the largest such part, less for a smaller one.
        left: Horizontal position of the part in the remaining space, 0 to 1.
        top: Vertical position of the part in the remaining space, 0 to 1.
    """
    aspect = (size[0] / size[1]) / (image_size[0] / image_size[1])
    width, height = zoom * min(1.0, aspect), zoom * min(1.0, 1 / aspect)
    x, y = left * (1 - width), top * (1 - height)
    return x, y, min(1.0, x + width), min(1.0, y + height)
