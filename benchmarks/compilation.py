#!/usr/bin/env python
"""What compiling costs and gains: the start of a first and of a second process, and compiled against uncompiled calls.

    python benchmarks/compilation.py --json benchmarks/results/compilation.json
    python benchmarks/compilation.py --device cuda --rows 16 --json FILE

A first process compiles the calls of an estimate (encoder, UNet, decoder) into an empty cache. A second one, without
torch's own cache on the disk, starts from the file that the first one left. Both then estimate every number of rows up
to `--rows` again, where nothing may be compiled, and compare the times of compiled and uncompiled estimates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from unicon import UniCon


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--condition", default="depth")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=1, help="largest number of rows; all smaller ones are padded to it")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        print(json.dumps(measured(options)))
        return
    with TemporaryDirectory() as folder:
        first, second = (process(Path(folder), name) for name in ("first", "second"))
    result = {
        "command": " ".join(sys.argv),
        "date": date.today().isoformat(),
        "hardware": torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
        "first process": first,
        "second process": second,
        "first over second, seconds to the first result": round(first["first_result_s"] / second["first_result_s"], 1),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def process(folder: Path, name: str) -> dict[str, Any]:
    """Measure in a process of its own; processes share what this project keeps, and nothing that torch keeps."""
    environment = {
        **os.environ, "XDG_CACHE_HOME": str(folder / "kept"), "TORCHINDUCTOR_CACHE_DIR": str(folder / name),
        "TRITON_CACHE_DIR": str(folder / f"{name}-triton"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--process"], env=environment, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Load the model, and measure its first result, its later ones, and those of the uncompiled model."""
    forms = {
        mode: UniCon.from_pretrained(options.model, device=options.device, compile=mode) for mode in ("always", "never")
    }
    side = forms["always"].native_px
    pixels = np.random.default_rng(0).integers(0, 256, (options.rows, side, side, 3), dtype=np.uint8)
    images = [Image.fromarray(each) for each in pixels]

    def seconds(mode: str, rows: int) -> float:
        began = time.perf_counter()
        forms[mode].estimate(images[:rows], options.condition, num_inference_steps=options.steps, num_views=1,
                             batch_size=options.rows)  # fmt: skip
        return time.perf_counter() - began

    seconds("never", options.rows)
    first = seconds("always", options.rows)
    seen = number_compiled()
    times = {mode: [] for mode in forms}
    for _ in range(options.rounds):
        for mode, kept in times.items():
            kept.append(seconds(mode, options.rows))
    ratios = [compiled / uncompiled for compiled, uncompiled in zip(*times.values(), strict=True)]
    return {
        "first_result_s": round(first, 2),
        "estimate_s": {mode: round(statistics.median(kept), 4) for mode, kept in times.items()},
        "compiled over uncompiled": round(statistics.median(ratios), 3),
        "recompilations": number_compiled() - seen,
        "compilation": forms["always"].compilation.describe(),
    }


def number_compiled() -> int:
    """The number of functions that torch has compiled in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


if __name__ == "__main__":
    main()
