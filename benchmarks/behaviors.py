#!/usr/bin/env python3
"""Draw every behavior of one model on scenes that it was never trained on, one column per scene.

    python benchmarks/behaviors.py --output docs/images/mini-behaviours.png

The scenes are not selected by hand: they are the first ones of their seed that show a mannequin.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unicon import UniCon
from unicon.conditions import CONDITIONS
from unicon.generation import Generated
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering

LABEL_WIDTH_PX = 150
SIZE_PX = 128
PROMPTS = ("a red ball in a room", "a blue mannequin in a yard", "a green box in a room", "a yellow cone in a yard")
Row = tuple[str, list[Image.Image]]
"""A label, and one image per scene."""


def scenes_with_people(seed: int, number: int) -> tuple[list[Rendering], list[Rendering]]:
    """Return the first scenes of a seed that show a mannequin (128 x 128), and the same scenes from nearby."""
    scenes: dict[int, Rendering] = {}
    for index in count():
        scene = render(sample_scene(seed, index), SIZE_PX, SIZE_PX)
        if len(scene.people):
            scenes[index] = scene
        if len(scenes) == number:
            break
    return list(scenes.values()), [render(sample_scene(seed, index, view=1), SIZE_PX, SIZE_PX) for index in scenes]


def draw_rows(
    model: UniCon, scenes: list[Rendering], views: list[Rendering], guidance: dict[str, Any]
) -> Iterator[Row]:
    """Yield the rows of the sheet, one behavior after the other."""
    images = [Image.fromarray(scene.image) for scene in scenes]
    captions = [scene.caption for scene in scenes]
    truth = {
        "depth": [scene.inverse_depth for scene in scenes],
        "edge": [scene.edges.astype(np.float32) for scene in scenes],
        "pose": [scene.pose.astype(np.float32) / 255 for scene in scenes],
    }
    yield "scene", images
    for kind, maps in truth.items():
        yield f"{kind}: truth", previews(kind, maps)
        yield f"{kind}: estimate", previews(kind, model.estimate(images, kind))
    ensemble = model.estimate_ensemble(images, "depth", ensemble_size=5, num_inference_steps=4)
    spreads = [np.clip(8 * estimate.spread, 0, 1) for estimate in ensemble]
    yield "depth: spread of 5, x 8", previews("edge", spreads)
    for kind, maps in truth.items():
        yield f"synthesize: {kind}", images_of(model.synthesize({kind: maps}, captions, **guidance))
    both = {kind: truth[kind] for kind in ("depth", "pose")}
    yield "synthesize: depth + pose", images_of(model.synthesize(both, captions, **guidance))
    if "appearance" in model.adapters:
        seen = [view.image.astype(np.float32) / 255 for view in views]
        yield "appearance: given", previews("appearance", seen)
        yield "synthesize: appearance", images_of(model.synthesize({"appearance": seen}, captions, **guidance))
        three = {**both, "appearance": seen}
        yield "synthesize: all three", images_of(model.synthesize(three, captions, **guidance))
    rough = [coarsened(values) for values in truth["depth"]]
    yield "refine: rough depth", previews("depth", rough)
    refined = model.refine({"depth": rough}, captions, **guidance)
    yield "refine: cleaned depth", previews("depth", [row.conditions["depth"] for row in refined])
    yield "refine: image", images_of(refined)
    pairs = model.generate_pairs([PROMPTS[at % len(PROMPTS)] for at in range(len(scenes))], seeds=range(len(scenes)))
    yield "generate_pairs: image", images_of(pairs)
    yield "generate_pairs: depth", previews("depth", [row.conditions["depth"] for row in pairs])
    mask = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    mask[:, SIZE_PX // 2 :] = 1
    painted = model.inpaint(images, [mask] * len(images), captions, conditions={"depth": truth["depth"]}, **guidance)
    yield "inpaint: right half", images_of(painted)


def coarsened(values: np.ndarray, cell_px: int = 16) -> np.ndarray:
    """Return a rough map, the means over the cells of a map (H, W)."""
    rows, columns = (length // cell_px for length in values.shape)
    means = values.reshape(rows, cell_px, columns, cell_px).mean((1, 3))
    return np.kron(means, np.ones((cell_px, cell_px))).astype(np.float32)


def previews(kind: str, maps: list[np.ndarray]) -> list[Image.Image]:
    """Render maps as viewable images."""
    return [CONDITIONS[kind].preview(values) for values in maps]


def images_of(results: list[Generated]) -> list[Image.Image]:
    """Return the images of generated rows."""
    return [result.image for result in results]


def draw_sheet(rows: list[Row]) -> Image.Image:
    """Draw labeled rows of images of 128 x 128 pixels."""
    columns = max(len(row) for _, row in rows)
    sheet = Image.new("RGB", (LABEL_WIDTH_PX + columns * SIZE_PX, len(rows) * SIZE_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for top, (label, row) in enumerate(rows):
        draw.text((6, top * SIZE_PX + SIZE_PX // 2 - 6), label, fill="black")
        for column, image in enumerate(row):
            sheet.paste(image, (LABEL_WIDTH_PX + column * SIZE_PX, top * SIZE_PX))
    return sheet


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="mini, or a folder (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--seed", type=int, default=101, help="seed of the scenes (%(default)s)")
    parser.add_argument("--scenes", type=int, default=6, help="number of scenes, one per column (%(default)s)")
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="text guidance (%(default)s)")
    parser.add_argument("--condition-guidance-scale", type=float, default=3.0, help="(%(default)s)")
    options = parser.parse_args()
    guidance = {
        "guidance_scale": options.guidance_scale,
        "condition_guidance_scale": options.condition_guidance_scale,
    }
    model = UniCon.from_pretrained(options.model)
    scenes, views = scenes_with_people(options.seed, options.scenes)
    draw_sheet(list(draw_rows(model, scenes, views, guidance))).save(options.output)


if __name__ == "__main__":
    main()
