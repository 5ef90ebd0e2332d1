"""Peak memory of the command and its workers, which must not grow with the length of the input."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fake_model import write_shards

ROOT = Path(__file__).resolve().parents[1]
SAMPLES_IN_A_SHARD = 1000


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000, 20_000])
    parser.add_argument("--size-px", type=int, default=256, help="side of the images (default: %(default)s)")
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--actors", type=int, default=1)


def measure(options: Namespace) -> dict[str, Any]:
    """Return the peaks in MB of the largest process of each kind, by number of samples."""
    return {str(samples): _one_run(samples, options) for samples in options.samples}


def _one_run(samples: int, options: Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        in_a_shard = min(samples, SAMPLES_IN_A_SHARD)
        folder = write_shards(Path(name) / "in", samples // in_a_shard, in_a_shard, options.size_px)
        arguments = ["--input", str(folder), "--output", str(Path(name) / "out")]
        arguments += ["--chunk-size", str(options.chunk_size), "--actors", str(options.actors)]
        command = [sys.executable, "-m", "benchmarks.fake_model_job", "0", *arguments]
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            peaks = _peaks(process)
        if process.returncode:
            raise RuntimeError(f"the command ended with exit code {process.returncode}")
        return {"wall_s": time.perf_counter() - began, **peaks}


def _peaks(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Sample the memory four times per second; `private` excludes shared memory, which is mostly the object store."""
    peaks: dict[str, float] = {}
    kinds: dict[int, str] = {}
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            driver = psutil.Process(process.pid)
            kinds[driver.pid] = "driver"
            for one in (driver, *driver.children(recursive=True)):
                _note(one, kinds, peaks)
        time.sleep(0.25)
    return peaks


def _note(process: psutil.Process, kinds: dict[int, str], peaks: dict[str, float]) -> None:
    with suppress(psutil.Error):
        title = " ".join(process.cmdline())
        if title.startswith("ray::MapWorker"):
            kinds[process.pid] = "actor"
        elif title.startswith("ray::MapBatches"):
            kinds[process.pid] = "cpu worker"
        kind = kinds.get(process.pid)
        memory = process.memory_info()
        if kind is not None:
            for name, size_bytes in (("rss", memory.rss), ("private", memory.rss - memory.shared)):
                at = f"{kind} {name} MB"
                peaks[at] = max(peaks.get(at, 0.0), round(size_bytes / 1e6, 1))
