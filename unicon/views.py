"""Test-time augmentation: several views of one image, whose estimates are averaged.

A view is the image mirrored, enlarged, or both. The errors of the views differ, so their mean is more accurate than
any of them; the cost grows with the number of views. Kinds of conditions that tell left from right, such as poses, are
not mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from unicon.conditions import Condition
from unicon.requests import RowRequest

WorkingSize = Callable[[tuple[int, int], float], tuple[int, int]]
"""(width, height) of an image, magnification -> (width, height) at which the model works."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One view of an image."""

    mirrored: bool = False
    magnification: float = 1.0
    """Factor of both sides of the working size."""


ONCE = (View(),)
LARGER = View(magnification=1.25)
VIEWS = {
    1: ONCE,
    2: (*ONCE, LARGER),
    4: (*ONCE, LARGER, View(mirrored=True), View(mirrored=True, magnification=LARGER.magnification)),
}
"""Number of views -> the views."""


def views_of(kind: Condition, count: int) -> tuple[View, ...]:
    """The views with which a kind of condition is estimated.

    Raises:
        ValueError: That number of views is not offered, or some are mirrored and the kind tells left from right.
    """
    possible = {n: views for n, views in VIEWS.items() if kind.mirrors or not any(view.mirrored for view in views)}
    if count not in possible:
        raise ValueError(f"A {kind.name} map is the mean of {[*possible]} views; got {count}. Give one of these.")
    return possible[count]


def expand_views(requests: Sequence[RowRequest], views: Sequence[View], working_size: WorkingSize) -> list[RowRequest]:
    """Every request in every view. The views of a request are adjacent."""
    mirrored: dict[int, Image.Image] = {}
    """Identity of an image -> its mirror image. Requests that share an image share its mirror image, encoded once."""
    found = []
    for request in requests:
        assert request.image is not None, "an estimate has its image"
        for view in views:
            image = request.image
            if view.mirrored and id(image) not in mirrored:
                mirrored[id(image)] = ImageOps.mirror(image)
            size = working_size(image.size, view.magnification)
            image = mirrored[id(image)] if view.mirrored else image
            found.append(replace(request, image=image, working_size=size))
    return found


def average_views(maps: Sequence[np.ndarray], views: Sequence[View]) -> list[np.ndarray]:
    """Average the maps (H, W) or (H, W, 3) of the views of every request, in the order of `expand_views`."""
    if len(views) == 1:
        return list(maps)
    groups = (maps[start : start + len(views)] for start in range(0, len(maps), len(views)))
    return [_mean(group, views) for group in groups]


def _mean(maps: Sequence[np.ndarray], views: Sequence[View]) -> np.ndarray:
    upright = [np.flip(values, 1) if view.mirrored else values for values, view in zip(maps, views, strict=True)]
    return np.stack(upright).mean(axis=0, dtype=np.float32)
