"""The sizes at which a model works on images: few of them, of about one area. Imports no torch.

Tested in tests/unicon/test_working_sizes.py.
"""

from __future__ import annotations

import math
from functools import lru_cache

MAX_ASPECT = 4.0
"""Longest aspect ratio at which the model works. Longer images are squeezed to it."""


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
