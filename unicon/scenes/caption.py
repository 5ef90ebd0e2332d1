"""English captions that name what is visible in a scene.

Tested in tests/unicon/scenes/test_render.py.
"""

from __future__ import annotations

import numpy as np

from unicon.scenes.layout import ROOM, Scene
from unicon.scenes.textures import Texture

MIN_VISIBLE_FRACTION = 0.006
"""Things that cover a smaller fraction of the image are not named."""


def caption(scene: Scene, owner: np.ndarray, depth_m: np.ndarray) -> str:
    """One sentence that names the visible things, nearest first, and the place.

    Args:
        scene: The scene that was rendered.
        owner: (H, W) index of the thing at every pixel, negative if there is none.
        depth_m: (H, W) depth in meters.
    """
    seen = []
    for index, thing in enumerate(scene.things):
        pixels = owner == index
        if pixels.mean() >= MIN_VISIBLE_FRACTION:
            seen.append((float(depth_m[pixels].mean()), _describe(thing.texture, thing.name)))
    names = [name for _, name in sorted(seen)] or ["nothing"]
    walls, floor, _ = scene.shell_textures
    place = "room" if scene.place == ROOM else "yard"
    return f"{_join(names)} in a {place} with {_plural(walls, 'walls')} and {_describe(floor, 'floor')}"


def _describe(texture: Texture, noun: str) -> str:
    words = f"{_plural(texture, noun)}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _plural(texture: Texture, noun: str) -> str:
    pattern = "" if texture.pattern == "plain" else f"{texture.pattern} "
    return f"{texture.color} {pattern}{noun}"


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
