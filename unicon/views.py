"""Several views of one picture, whose estimates are averaged: test-time augmentation.

A view is the picture mirrored, seen larger, or both. Their errors differ, and their mean is nearer to the truth than
each of them; it costs as many times the work as there are views. Mirroring is left out for kinds of conditions that
tell left from right, such as poses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from unicon.conditions import Condition
from unicon.generation import Request

WorkingSize = Callable[[tuple[int, int], float], tuple[int, int]]
"""(width, height) of a picture, magnification -> (width, height) at which the model sees it."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One way of looking at a picture."""

    mirrored: bool = False
    magnification: float = 1.0
    """Of both sides of the working size."""


ONCE = (View(),)
LARGER = View(magnification=1.25)
VIEWS = {
    1: ONCE,
    2: (*ONCE, LARGER),
    4: (*ONCE, LARGER, View(mirrored=True), View(mirrored=True, magnification=LARGER.magnification)),
}
"""By their number."""


def views_of(kind: Condition, count: int) -> tuple[View, ...]:
    """The views of a kind of condition.

    Errors: ValueError for a number that there is not, or mirrored views of a kind that tells left from right.
    """
    possible = {n: views for n, views in VIEWS.items() if kind.mirrors or not any(view.mirrored for view in views)}
    if count not in possible:
        raise ValueError(f"A {kind.name} map is the mean of {[*possible]} views; got {count}. Give one of these.")
    return possible[count]


def seen(requests: Sequence[Request], views: Sequence[View], working_size: WorkingSize) -> list[Request]:
    """Every request in every view, the views of a request side by side."""
    mirrored: dict[int, Image.Image] = {}
    """By the identity of the picture: requests that share one share its mirror image, which is encoded once."""
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


def merged(maps: Sequence[np.ndarray], views: Sequence[View]) -> list[np.ndarray]:
    """The mean of the views of every request, maps (H, W) or (H, W, 3) in the order of `seen`."""
    if len(views) == 1:
        return list(maps)
    groups = (maps[start : start + len(views)] for start in range(0, len(maps), len(views)))
    return [_mean(group, views) for group in groups]


def _mean(maps: Sequence[np.ndarray], views: Sequence[View]) -> np.ndarray:
    upright = [np.flip(values, 1) if view.mirrored else values for values, view in zip(maps, views, strict=True)]
    return np.stack(upright).mean(axis=0, dtype=np.float32)
