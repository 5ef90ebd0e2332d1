#!/usr/bin/env python
"""Images per second of `UniCon.estimate` in every mode, side by side in one run.

    python benchmarks/random_sd15.py --output /tmp/sd15 --device cuda
    python benchmarks/throughput.py --model /tmp/sd15 --device cuda --compile always --batch-size 16
    python benchmarks/throughput.py --model mini --images 16 --rounds 3          # the same on a CPU

All modes process the same images in alternating rounds; every mode runs once before, to warm up. The result holds the
median images per second of every mode, what a million images cost in hours of this device, and the ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from benchmarks.engine import hardware
from unicon import UniCon
from unicon.options import SamplingOptions

MILLION, SECONDS_PER_HOUR = 1_000_000, 3600


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way to estimate conditions: one call of `UniCon.estimate` for each entry of `calls`."""

    calls: tuple[tuple[str, ...], ...]
    options: SamplingOptions


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    options = parse()
    model = UniCon.from_pretrained(
        options.model, device=options.device, dtype=options.dtype, compile=options.compile
    )  # fmt: skip
    images = random_images(options.images, model.native_px)
    modes = chosen_modes(modes_of(model, options.conditions), options.modes)
    seconds = measure(
        {name: call_of(model, mode, images, options.batch_size) for name, mode in modes.items()},
        options.rounds,
        options.device,
    )
    result = {
        "command": " ".join(sys.argv),
        "date": date.today().isoformat(),
        "hardware": hardware(options.device),
        "torch": torch.__version__,
        "size_px": model.native_px,
        "modes": {name: described(mode) for name, mode in modes.items()},
        **summary(seconds, options.images),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="`mini` or a model folder (default: %(default)s)")
    parser.add_argument("--conditions", nargs="+", default=["depth", "edge", "pose"], metavar="NAME")
    parser.add_argument("--images", type=int, default=64, help="images of a round (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--compile", choices=("never", "always"), default="never")
    parser.add_argument("--modes", nargs="+", metavar="NAME", help="modes to measure (default: all)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def random_images(count: int, side_px: int) -> list[Image.Image]:
    """Square RGB images of noise; the costs of a model do not depend on the content."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in pixels]


def modes_of(model: UniCon, conditions: list[str]) -> dict[str, Mode]:
    """Return the modes that the model supports: a small decoder and several conditions only where it has them."""
    first = (tuple(conditions[:1]),)
    one = SamplingOptions(num_inference_steps=1, one_way=True)
    modes = {
        "20 steps, two-way": Mode(calls=first, options=SamplingOptions(num_inference_steps=20)),
        "20 steps, one-way": Mode(calls=first, options=SamplingOptions(num_inference_steps=20, one_way=True)),
        "10 steps, one-way": Mode(calls=first, options=SamplingOptions(num_inference_steps=10, one_way=True)),
        "1 step": Mode(calls=first, options=one),
    }
    if model.limits.has_map_decoder:
        small = SamplingOptions(num_inference_steps=1, one_way=True, map_decoder="small")
        modes["1 step, small decoder"] = Mode(calls=first, options=small)
    if len(conditions) > 1:
        modes["1 step, all conditions in one pass"] = Mode(calls=(tuple(conditions),), options=one)
        modes["1 step, a run for each condition"] = Mode(calls=tuple((name,) for name in conditions), options=one)
    return modes


def chosen_modes(modes: dict[str, Mode], names: list[str] | None) -> dict[str, Mode]:
    """Return the modes of these names, or all. Raises SystemExit for a mode that the model does not support."""
    for name in names or ():
        if name not in modes:
            sys.exit(f"The modes of this model are {list(modes)}; got {name!r}.")
    return {name: mode for name, mode in modes.items() if names is None or name in names}


def described(mode: Mode) -> dict[str, object]:
    """Return a mode as plain values: its calls, and the options that are not the default."""
    defaults = asdict(SamplingOptions())
    changed = {name: value for name, value in asdict(mode.options).items() if value != defaults[name]}
    return {"calls": [list(conditions) for conditions in mode.calls], **changed}


def call_of(model: UniCon, mode: Mode, images: list[Image.Image], batch_size: int) -> Callable[[], None]:
    """Return a function that estimates the conditions of all images with one view."""

    def call() -> None:
        for at in range(0, len(images), batch_size):
            batch = images[at : at + batch_size]
            for conditions in mode.calls:
                model.estimate(batch, list(conditions), num_views=1, options=mode.options)

    return call


def measure(calls: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, list[float]]:
    """Return the seconds of every mode in every round, without the first one."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def summary(seconds: dict[str, list[float]], images: int) -> dict[str, object]:
    """Return images per second, hours per million images, and the gain of one pass over separate runs."""
    rates = {name: images / statistics.median(times) for name, times in seconds.items()}
    found: dict[str, object] = {
        "images per second": {name: round(rate, 2) for name, rate in rates.items()},
        "device hours per million images": {
            name: round(MILLION / rate / SECONDS_PER_HOUR, 2) for name, rate in rates.items()
        },
    }
    together, apart = rates.get("1 step, all conditions in one pass"), rates.get("1 step, a run for each condition")
    if together and apart:
        found["one pass over separate runs"] = round(together / apart, 3)
    return found


if __name__ == "__main__":
    main()
