"""A sheet of what the rivals make of unseen scenes, one column a scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.behaviors import draw_sheet, previews
from benchmarks.rivals.base import read_base
from benchmarks.rivals.data import DEPTH, TrainingScenes, unseen_scenes
from benchmarks.rivals.field import FIELD
from benchmarks.rivals.measures import STEPS
from benchmarks.rivals.rival import Estimates, Generates, Synthesizes
from unicon.scenes.render import Rendering

SHOWN, GUIDANCE, COLORS = 4, 3.0, 192
Row = tuple[str, list[Image.Image]]


def draw(work: Path, names: Sequence[str], training: TrainingScenes, path: Path) -> None:
    """Draw truth and results of the trained rivals in a work folder, as a PNG of few colors."""
    scenes = unseen_scenes(SHOWN)
    rows = list(_rows(work, names, training, scenes))
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(rows).quantize(COLORS).save(path, optimize=True)


def _rows(work: Path, names: Sequence[str], training: TrainingScenes, scenes: list[Rendering]) -> Iterator[Row]:
    images, truths = [scene.image for scene in scenes], [scene.inverse_depth for scene in scenes]
    captions = [scene.caption for scene in scenes]
    yield "scene", _pictures(images)
    yield "depth: truth", previews(DEPTH, truths)
    made: list[Row] = []
    both: list[Row] = []
    for name in names:
        rival = FIELD[name].build(read_base(work / "base"), training, 1)
        rival.load(work / name)
        if isinstance(rival, Estimates):
            yield f"depth:\n{name}", previews(DEPTH, rival.estimate(images, 1))
        if isinstance(rival, Synthesizes):
            found = rival.synthesize(truths, captions, STEPS, GUIDANCE)
            made.append((f"image from depth:\n{name}", _pictures(found)))
        if isinstance(rival, Generates):
            drawn, maps = rival.generate(captions, STEPS, GUIDANCE)
            both += [(f"both from a caption:\n{name}", _pictures(drawn)), ("", previews(DEPTH, maps))]
    yield from (*made, *both)


def _pictures(images: Sequence[np.ndarray]) -> list[Image.Image]:
    return [Image.fromarray(image) for image in images]
