"""Fixed cost of a run: the command on one sample with a no-op model."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks.fake_model import write_shards

ROOT = Path(__file__).resolve().parents[1]


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=5)


def measure(options: Namespace) -> dict[str, Any]:
    """Return the medians over the rounds, in seconds from the start of the command."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_shards(Path(name) / "in", 1, 1, 64)
        rounds = [_one_run(folder, Path(name) / f"out-{number}") for number in range(options.rounds)]
        return {part: statistics.median(times[part] for times in rounds) for part in rounds[0]} | {
            "rounds": options.rounds
        }


def _one_run(folder: Path, output: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.fake_model_job", "0", "--input", str(folder), "--output", str(output)]
    began = time.perf_counter()
    times: dict[str, float] = {}
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("starting Ray"):
                times["planned_s"] = time.perf_counter() - began
            elif "chunks on" in line:
                times["ray_started_s"] = time.perf_counter() - began
            elif line.startswith("1 of 1 samples"):
                times["sample_published_and_ray_ended_s"] = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"the command ended with exit code {process.returncode}")
    return times | {"command_s": time.perf_counter() - began}
