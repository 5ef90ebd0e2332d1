"""Near duplicates: planted copies that are found, other images that are taken for copies, and the time for a million.

    python benchmarks/duplicates.py --json benchmarks/results/duplicates.json

Tested in tests/benchmarks/test_duplicates.py.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pipeline import hardware
from benchmarks.planning import in_a_process
from pipelines.quality.near_duplicates import duplicates, near_pairs
from pipelines.quality.perceptual_hash import FREQUENCIES, SIGNATURE_BYTES, signature
from unicon.scenes import render, sample_scene

PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "moon", "page", "retina", "rocket", "text"),
)
"""Images of scikit-image that come with the package; those beyond are fetched, and are not used here."""
TILE_PX = 128
CROP = 0.05
"""Part of the width and of the height that a crop removes."""
QUANTIZATION_NOISE = 8.0
"""Standard deviation of the noise on the coefficients of the copies among random signatures."""

Images = Mapping[str, list[Image.Image]]


def photographs() -> Iterator[Image.Image]:
    """Yield photographs, micrographs, textures and pages of text."""
    import skimage.data

    for name in PHOTOGRAPHS:
        yield Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def tiles(photos: list[Image.Image]) -> Iterator[Image.Image]:
    """Yield the disjoint squares of the photographs."""
    for photo in photos:
        for top in range(0, photo.height - TILE_PX + 1, TILE_PX):
            for left in range(0, photo.width - TILE_PX + 1, TILE_PX):
                yield photo.crop((left, top, left + TILE_PX, top + TILE_PX))


def scenes(count: int, side_px: int = 96) -> Iterator[Image.Image]:
    """Yield rendered rooms and yards, which are similar to each other without being copies."""
    for index in range(count):
        yield Image.fromarray(render(sample_scene(5, index), side_px, side_px, supersampling=1).image)


def textures(count: int) -> Iterator[Image.Image]:
    """Yield smooth random colors at scales from 4 to 96 cells."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        cells = int(rng.integers(4, 97))
        colors = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        yield Image.fromarray(colors).resize((192, 160), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the image after JPEG compression of quality 75."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer)


def half(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the image at half the size."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Remove 5 percent of the width and of the height, at random shares of both ends."""
    left, top = rng.uniform(0, CROP, 2)
    width, height = image.size
    box = (left * width, top * height, (1 - CROP + left) * width, (1 - CROP + top) * height)
    left, top, right, bottom = map(round, box)
    return image.crop((left, top, right, bottom))


def all_three(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a crop at half the size with JPEG compression."""
    return jpeg(half(crop(image, rng), rng), rng)


COPIES: Mapping[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "JPEG 75": jpeg,
    "half size": half,
    "crop of 5 %": crop,
    "all three": all_three,
}


def of_images(images: Images) -> dict[str, Any]:
    """Return the share of copies that are found, by kind of copy and image, and that of originals called copies."""
    listed = [image for group in images.values() for image in group]
    groups = np.array([name for name, group in images.items() for _ in group])
    originals = _signatures(listed)
    has_structure = originals[:, : FREQUENCIES**2].any(1)
    nothing = np.zeros(len(listed), bool)
    is_false = duplicates(originals, nothing) >= 0
    result: dict[str, Any] = {
        "images": {name: len(group) for name, group in images.items()},
        "without_structure": int((~has_structure).sum()),
        "originals_called_duplicates_percent": _percent(is_false),
        "found_percent": {},
    }
    for name, change in COPIES.items():
        rng = np.random.default_rng(1)
        copies = _signatures([change(image, rng) for image in listed])
        partner = duplicates(np.concatenate([originals, copies]), np.repeat([True, False], len(listed)))
        found = partner[len(listed) :] == np.arange(len(listed))
        by_group = {group: _percent(found[has_structure & (groups == group)]) for group in images}
        result["found_percent"][name] = {"all": _percent(found[has_structure]), **by_group}
    return result


def of_random_signatures(count: int) -> dict[str, Any]:
    """Search random signatures of one mean color, of which one in a hundred has a copy with noise."""
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 256, (count, SIGNATURE_BYTES), np.uint8)
    signatures[:, FREQUENCIES**2 :] = 128
    copies = signatures[: count // 100].copy()
    levels = copies[:, : FREQUENCIES**2].view(np.int8)
    noisy = levels + rng.normal(0, QUANTIZATION_NOISE, levels.shape)
    levels[:] = np.clip(np.round(noisy), -127, 127).astype(np.int8)
    began, began_cpu = time.perf_counter(), time.process_time()
    pairs = near_pairs(np.concatenate([signatures, copies]))
    took_s, took_cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    is_planted = pairs[:, 1] == pairs[:, 0] + count
    return {
        "signatures": count + len(copies),
        "planted_found_percent": round(100 * int(is_planted.sum()) / len(copies), 3),
        "false_pairs": int((~is_planted).sum()),
        "seconds": round(took_s, 1),
        "cpu_seconds": round(took_cpu_s, 1),
    }


def _signatures(images: list[Image.Image]) -> np.ndarray:
    content = b"".join(signature(image) for image in images)
    return np.frombuffer(content, np.uint8).reshape(len(images), SIGNATURE_BYTES)


def _percent(values: np.ndarray) -> float:
    return round(100 * float(values.mean()), 3)


def main() -> None:
    """Measure, print and write the results."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=4_000)
    parser.add_argument("--textures", type=int, default=400)
    parser.add_argument("--signatures", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="file to write the results to")
    options = parser.parse_args()
    photos = list(photographs())
    images = {
        "photographs": photos,
        "tiles of photographs": list(tiles(photos)),
        "scenes": list(scenes(options.scenes)),
        "textures": list(textures(options.textures)),
    }
    results = {
        "images": of_images(images),
        "random signatures": in_a_process(of_random_signatures, options.signatures),
    }
    about = {"command": shlex.join(["python", *sys.argv]), "date": date.today().isoformat(), "hardware": hardware()}
    text = json.dumps({**about, "results": results}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
