#!/usr/bin/env python3
"""What every shortcut costs in accuracy and saves in time, measured on scenes that the model was never trained on.

    python benchmarks/prices.py --json benchmarks/results/prices-mini.json

Estimates (AbsRel of depth, F1 of edges, PCK of poses), one row for every way to make them:

    exact           --preset exact, the published sampling, of one view
    many steps      20 steps of one view
    balanced        --preset balanced, what the adapters recommend
    one step, one view, one way, small decoder     balanced with this shortcut alone
    bfloat16        balanced in bfloat16
    fast            --preset fast: all four shortcuts

Generated images, for each number of steps and sampler: the correlation of the depth estimated from the generated image
with the given depth (cycle), and with the depth of the next scene (shuffled).

All rows of a table are measured in turns on a few scenes at a time, so that other work on the machine slows all of them
down alike. `seconds` is the time of an image, `of_balanced` the share of that of balanced (for images: of 20 steps).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pipeline import hardware, rounded
from jobs._presets import BALANCED, EXACT, FAST, preset_sampling
from unicon import UniCon
from unicon.metrics.correlation import correlation
from unicon.options import SamplerName, SamplingOptions
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering
from unicon.training.mini.validation import TRUTHS, accuracy

SCENES_IN_A_TURN = 16
METRICS = {"depth": "abs_rel", "edge": "f1", "pose": "pck"}


@dataclass(kw_only=True)
class Way:
    """One way to compute results, and its results so far."""

    call: Callable[[Sequence[Rendering]], Sequence[np.ndarray]]
    results: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0


def run_in_turns(ways: Mapping[str, Way], scenes: Sequence[Rendering]) -> None:
    """Compute the results of all scenes in all ways, after one warm-up each."""
    for way in ways.values():
        way.call(scenes[:2])
    for at in range(0, len(scenes), SCENES_IN_A_TURN):
        for way in ways.values():
            began = time.perf_counter()
            way.results += way.call(scenes[at : at + SCENES_IN_A_TURN])
            way.seconds += time.perf_counter() - began


def estimation_ways(model: UniCon, wide: UniCon, kind: str) -> dict[str, Way]:
    """Return the ways to estimate a condition with a model, which `wide` has in bfloat16."""
    has_decoder = model.limits.has_map_decoder
    balanced, exact, fast = (preset_sampling(name, {}, has_decoder) for name in (BALANCED, EXACT, FAST))
    ways = {
        "exact": _estimate(model, kind, exact, num_views=1),
        "many steps": _estimate(model, kind, SamplingOptions(num_inference_steps=20), num_views=1),
        "balanced": _estimate(model, kind, balanced),
        "one step": _estimate(model, kind, SamplingOptions(num_inference_steps=1)),
        "one view": _estimate(model, kind, balanced, num_views=1),
        "one way": _estimate(model, kind, SamplingOptions(one_way=True)),
        "bfloat16": _estimate(wide, kind, balanced),
        "fast": _estimate(model, kind, fast, num_views=1),
    }
    return ways | (
        {"small decoder": _estimate(model, kind, SamplingOptions(map_decoder="small"))} if has_decoder else {}
    )


def _estimate(model: UniCon, kind: str, options: SamplingOptions, num_views: int | None = None) -> Way:
    return Way(call=lambda scenes: model.estimate(_images(scenes), kind, num_views=num_views, options=options))


def _images(scenes: Sequence[Rendering]) -> list[Image.Image]:
    return [Image.fromarray(scene.image) for scene in scenes]


def generation_ways(model: UniCon, guidance: float) -> dict[str, Way]:
    """Return the ways to generate images with the depth of scenes: samplers and numbers of steps."""
    samplers: dict[SamplerName, tuple[int, ...]] = {"ddim": (20, 8, 4), "dpmsolver++": (8, 4)}
    ways = {
        f"{sampler}, {steps} steps": SamplingOptions(sampler=sampler, num_inference_steps=steps)
        for sampler, counts in samplers.items()
        for steps in counts
    } | {"one way, ddim, 20 steps": SamplingOptions(num_inference_steps=20, one_way=True)}

    def generate(options: SamplingOptions) -> Callable[[Sequence[Rendering]], list[np.ndarray]]:
        def call(scenes: Sequence[Rendering]) -> list[np.ndarray]:
            depths, captions = [scene.inverse_depth for scene in scenes], [scene.caption for scene in scenes]
            made = model.synthesize(
                {"depth": depths}, captions, options=options, guidance_scale=1.0, condition_guidance_scale=guidance
            )
            return [np.asarray(each.image) for each in made]

        return call

    return {name: Way(call=generate(options)) for name, options in ways.items()}


def with_times(numbers: Mapping[str, Mapping[str, Any]], ways: Mapping[str, Way], reference: str) -> dict[str, Any]:
    """Add seconds per image to the numbers of every way, and their share of those of one way."""
    seconds = {name: way.seconds / len(way.results) for name, way in ways.items()}
    return {
        name: {**found, "seconds": seconds[name], "of_balanced": seconds[name] / seconds[reference]}
        for name, found in numbers.items()
    }


def price_estimates(model: UniCon, wide: UniCon, kind: str, scenes: Sequence[Rendering]) -> dict[str, Any]:
    """Return the accuracy and the time of every way to estimate a condition."""
    ways = estimation_ways(model, wide, kind)
    run_in_turns(ways, scenes)
    numbers = {name: {METRICS[kind]: accuracy(kind, way.results, scenes)[METRICS[kind]]} for name, way in ways.items()}
    return with_times(numbers, ways, "balanced")


def price_images(model: UniCon, guidance: float, scenes: Sequence[Rendering]) -> dict[str, Any]:
    """Return the agreement of generated images with their depth, and the time of every way to generate them."""
    ways = generation_ways(model, guidance)
    run_in_turns(ways, scenes)
    given = [TRUTHS["depth"](scene) for scene in scenes]
    numbers = {}
    for name, way in ways.items():
        again = model.estimate([Image.fromarray(image) for image in way.results], "depth")
        pairs, others = zip(again, given, strict=True), zip(again, [*given[1:], given[0]], strict=True)
        numbers[name] = {
            "cycle": float(np.mean([correlation(one, other) for one, other in pairs])),
            "shuffled": float(np.mean([correlation(one, other) for one, other in others])),
        }
    return with_times(numbers, ways, "ddim, 20 steps")


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="mini, or a folder (%(default)s)")
    parser.add_argument("--seed", type=int, default=101, help="seed of the scenes (%(default)s)")
    parser.add_argument("--scenes", type=int, default=256, help="scenes for estimates (%(default)s)")
    parser.add_argument("--images", type=int, default=64, help="scenes for generated images, 0 for none (%(default)s)")
    parser.add_argument("--condition-guidance-scale", type=float, default=3.0, help="of images (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args()
    scenes = [render(sample_scene(options.seed, index)) for index in range(max(options.scenes, options.images))]
    model, wide = UniCon.from_pretrained(options.model), UniCon.from_pretrained(options.model, dtype="bfloat16")
    results = {
        kind: price_estimates(model, wide, kind, scenes[: options.scenes])
        for kind in METRICS
        if kind in model.adapters and options.scenes
    }
    if options.images:
        results["images"] = price_images(model, options.condition_guidance_scale, scenes[: options.images])
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "model": {"name": options.model, "weights_sha256": model.weights_sha256, "device": str(model.device)},
        "scenes": {"seed": options.seed, "estimates": options.scenes, "images": options.images},
        "results": rounded(results),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
