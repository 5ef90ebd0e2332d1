"""Publishing: CPU time and bytes of an image or map as PNG, by this project's encoder and by Pillow's, in one run."""

from __future__ import annotations

import io
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from pipelines.images.codec import depth_levels, pack
from pipelines.images.png import png_bytes
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.estimation import Estimation
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering, render

PILLOW_LEVEL = 1
NOISE = 5e-4
"""Standard deviation of the noise that makes an exact depth map as irregular as an estimate, in units of depth."""
REPETITIONS = 7


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--images", type=int, default=8, help="rendered scenes (default: %(default)s)")
    parser.add_argument("--size-px", type=int, default=512, help="side of the images (default: %(default)s)")


def measure(options: Namespace) -> dict[str, Any]:
    """Measure both encoders on every kind of image, and a whole row of an estimation of depth, edges and poses."""
    renderings = [
        render(sample_scene(0, index), options.size_px, options.size_px, supersampling=1)
        for index in range(options.images)
    ]
    kinds = [kinds_of(rendering) for rendering in renderings]
    encoders = {"ours": png_bytes, "pillow": partial(_by_pillow, level=PILLOW_LEVEL)}
    results: dict[str, Any] = {
        kind: {name: _cost(encode, [images[kind] for images in kinds]) for name, encode in encoders.items()}
        for kind in kinds[0]
    }
    for names in (["depth"], ["depth", "edge", "pose"]):
        task = Estimation(conditions=tuple(ConditionColumn(name=name, kind=name) for name in names), max_pixels=1 << 30)
        rows = [_row(images, names) for images in kinds]
        results[f"row of {' + '.join(names)}"] = {"cpu_ms": median(_cpu_ms(partial(task.write, row)) for row in rows)}
    return results


def kinds_of(rendering: Rendering) -> Mapping[str, Image.Image]:
    """Return the images of a rendering that are published, by kind."""
    depth = rendering.inverse_depth + np.random.default_rng(0).normal(0, NOISE, rendering.inverse_depth.shape)
    return {
        "depth": Image.fromarray(depth_levels(depth)),
        "edge": Image.fromarray(rendering.edges.astype(np.uint8) * 255),
        "pose": Image.fromarray(rendering.pose),
        "image": Image.fromarray(rendering.image),
    }


def _row(images: Mapping[str, Image.Image], names: list[str]) -> dict[str, Any]:
    """Return a row as the actor passes it to publication."""
    width, height = images["image"].size
    maps = {f"{name}_estimated": pack(images[name]) for name in names}
    return {"key": "0", "image": b"\xff\xd8", "image_name": "0.jpg", "width": width, "height": height, **maps}


def _by_pillow(image: Image.Image, level: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _cost(encode: Callable[[Image.Image], bytes], images: list[Image.Image]) -> dict[str, float]:
    """Return the median CPU time of an image, and the mean size of its file."""
    return {
        "cpu_ms": median(_cpu_ms(partial(encode, image)) for image in images),
        "kb": sum(len(encode(image)) for image in images) / len(images) / 1000,
    }


def _cpu_ms(call: Callable[[], object]) -> float:
    """Return the CPU time of the fastest of several calls."""
    times = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1000 * min(times)
