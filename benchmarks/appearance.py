#!/usr/bin/env python3
"""Measure how well images that are generated with an appearance condition adopt its colors.

    python benchmarks/appearance.py --scenes 64 --picture out/appearance.png

A scene is rendered from two viewpoints. One view is the condition, and an image is generated with the caption of the
other. The color likeness (`unicon.metrics.color`) is measured between the given view and

    made         the image generated with it
    shuffled     the image generated with the view of the next scene
    caption      the image generated with the caption alone: what the prompt says about the colors
    other view   the other rendering: what a perfect model would reach
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unicon import UniCon
from unicon.metrics.color import color_likeness
from unicon.scenes import render
from unicon.scenes.layout import sample_scene

SHOWN = 8


def main() -> None:
    """Measure, print one line of JSON, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="mini, or a folder (%(default)s)")
    parser.add_argument("--adapter", default="appearance", help="name of its adapter (%(default)s)")
    parser.add_argument("--seed", type=int, default=101, help="seed of the scenes (%(default)s)")
    parser.add_argument("--scenes", type=int, default=64, help="number of scenes (%(default)s)")
    parser.add_argument("--condition-guidance-scale", type=float, default=3.0, help="(%(default)s)")
    parser.add_argument("--picture", type=Path, help="draw the two views and the generated images here")
    options = parser.parse_args()
    given = [render(sample_scene(options.seed, index, view=1)) for index in range(options.scenes)]
    other = [render(sample_scene(options.seed, index)) for index in range(options.scenes)]
    model, captions = UniCon.from_pretrained(options.model), [view.caption for view in other]
    maps = [view.image.astype(np.float32) / 255 for view in given]
    scale = options.condition_guidance_scale
    results = model.synthesize({options.adapter: maps}, captions, guidance_scale=1.0, condition_guidance_scale=scale)
    made = [np.asarray(result.image) for result in results]
    plain = model.synthesize({options.adapter: maps}, captions, guidance_scale=1.0, weights={options.adapter: 0.0})
    references = [view.image for view in given]
    compared = {
        "made": made,
        "shuffled": [*made[1:], made[0]],
        "caption": [np.asarray(result.image) for result in plain],
        "other view": [view.image for view in other],
    }
    found = {name: mean_likeness(references, images) for name, images in compared.items()}
    print(json.dumps({"scenes": options.scenes, "seed": options.seed, "condition_guidance_scale": scale, **found}))
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        rows = (references, compared["other view"], made, compared["caption"])
        Image.fromarray(np.concatenate([np.concatenate(row[:SHOWN], 1) for row in rows])).save(options.picture)


def mean_likeness(references: list[np.ndarray], images: list[np.ndarray]) -> float:
    """Return the mean color likeness of corresponding images, rounded to three places."""
    pairs = zip(references, images, strict=True)
    return round(float(np.mean([color_likeness(one, other) for one, other in pairs])), 3)


if __name__ == "__main__":
    main()
