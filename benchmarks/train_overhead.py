"""Overhead of training on Ray over the plain loop, and the rate of the stream of batches alone, in one run.

    python -m benchmarks.train_overhead --seconds 0.5 --batch-size 16 --size-px 128
    python -m benchmarks.train_overhead --seconds 0.35 --size-px 512 --json benchmarks/results/train.json

A worker of Ray Train takes steps that sleep, as a device would work, in blocks of two kinds that alternate: with the
batches of the stream (Ray Data reads and decodes a corpus in other processes), and with one batch that is in memory.
The overhead is the median step of the first kind over that of the second; both include an all-reduce of the size of an
adapter. Then the worker takes batches without a step, which gives the rate that the stream allows. Before all that,
this process reads and decodes batches by itself, for the pairs per second of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.fake_model import encoded_image
from pipelines.dataset import schema
from pipelines.engine.cluster import ray_session
from pipelines.engine.train import Scaling, Session, run_training
from pipelines.images.png import png_bytes
from pipelines.training.checkpoints import StoredCheckpoints
from pipelines.training.conditions import CorpusCondition
from pipelines.training.corpus import Corpus, plan_corpus
from pipelines.training.source import StreamedBatches
from pipelines.training.steps import CorpusSteps
from pipelines.training.windows import WindowReader
from unicon.training.views import Views

ADAPTER_FLOATS = 10_000_000
"""Parameters of an adapter of rank 64 for Stable Diffusion 1.5, about."""
TEMPLATES = 32


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.35, help="time of a step on the device")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size-px", type=int, default=512)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--block", type=int, default=10, help="steps of a block")
    parser.add_argument("--rounds", type=int, default=6, help="blocks of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {
        "command": "python -m benchmarks.train_overhead " + " ".join(sys.argv[1:]),
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start",
        **measure(options),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the overhead and the rates."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus", options.rows, options.size_px)
        work = SleepingWork(
            seconds=options.seconds, block=options.block, rounds=options.rounds, batch_size=options.batch_size
        )
        steps = steps_of(Path(folder), options, (options.rounds + 1) * options.block + work.free_steps)
        found["pairs_a_processor_second"] = processor_rate(steps, options)
        with ray_session():
            run_training(work, steps, Scaling(), found.update)
    return found


def processor_rate(steps: CorpusSteps, options: argparse.Namespace) -> float:
    """Return the pairs that a second of processor time reads and decodes."""
    began, count = time.process_time(), 0
    for table in steps.reader.read(steps.tasks()[0], 1):
        steps.reader.decode(table)
        count += 1
    return round(count * options.batch_size / (time.process_time() - began), 1)


def steps_of(folder: Path, options: argparse.Namespace, steps: int) -> CorpusSteps:
    """Return the steps of a training on the corpus of a folder."""
    condition = CorpusCondition(name="depth", kind="depth")
    corpus = Corpus(uris=(str(folder / "corpus"),), conditions=(condition,))
    reader = WindowReader(
        names=("depth",),
        kinds=("depth",),
        views=Views(resolution_px=options.size_px, multiple=64, aspect_buckets=True),
        batch_size=options.batch_size,
        seed=0,
        max_pixels=1 << 28,
    )
    work = str(folder / "work")
    return CorpusSteps(
        corpus=plan_corpus(corpus, work), reader=reader, checkpoints=StoredCheckpoints(work), steps=steps
    )


def write_corpus(folder: Path, rows: int, size_px: int) -> None:
    """Write JPEG images with depth maps of 16 bits, of which only `TEMPLATES` differ."""
    (folder / "data").mkdir(parents=True)
    columns = [("key", pa.string()), ("image", schema.MEDIA), ("depth", schema.MEDIA), ("caption", pa.string())]
    ramp = np.linspace(0, 65535, size_px, dtype=np.uint16)
    depth = png_bytes(Image.fromarray(np.broadcast_to(ramp, (size_px, size_px)).copy()))
    images = [encoded_image(number, size_px) for number in range(TEMPLATES)]
    found = [
        {
            "key": f"{number:06d}",
            "image": {"bytes": images[number % TEMPLATES], "path": f"{number}.jpg"},
            "depth": {"bytes": depth, "path": f"{number}.png"},
            "caption": "colors",
        }
        for number in range(rows)
    ]
    content = schema.parquet_bytes(found, schema.with_features(pa.schema(columns)))
    (folder / "data" / "0.parquet").write_bytes(content)


@dataclass(frozen=True, kw_only=True)
class SleepingWork:
    """A worker whose steps sleep."""

    seconds: float
    block: int
    rounds: int
    batch_size: int

    @property
    def free_steps(self) -> int:
        """Number of steps without sleeping."""
        return 2 * self.block

    def __call__(self, session: Session) -> None:
        """Measure in a worker, and tell the result."""
        source, steps = StreamedBatches(session.rows, lambda told: None), iter(range(10**9))
        kept = source.batch(next(steps), 0, 1)
        streamed: list[float] = []
        bare: list[float] = []
        for _ in range(self.block - 1):  # warm-up: the stream fills its buffers
            self._step(lambda: source.batch(next(steps), 0, 1))
        for _ in range(self.rounds):
            streamed += [self._step(lambda: source.batch(next(steps), 0, 1)) for _ in range(self.block)]
            bare += [self._step(lambda: kept) for _ in range(self.block)]
        began = time.perf_counter()
        for _ in range(self.free_steps):
            source.batch(next(steps), 0, 1)
        rate = self.free_steps * self.batch_size / (time.perf_counter() - began)
        median, mean = (
            {"stream": round(of(streamed), 4), "in_memory": round(of(bare), 4)}
            for of in (statistics.median, statistics.mean)
        )
        session.tell(
            {
                "median_step_s": median,
                "mean_step_s": mean,
                "overhead_of_medians": round(median["stream"] / median["in_memory"] - 1, 4),
                "overhead_of_means": round(mean["stream"] / mean["in_memory"] - 1, 4),
                "stream_pairs_a_second": round(rate, 1),
            }
        )

    def _step(self, batch: Any) -> float:
        """Take a step and return its seconds."""
        import torch
        from torch import distributed as dist

        began = time.perf_counter()
        batch()
        time.sleep(self.seconds)
        dist.all_reduce(torch.zeros(ADAPTER_FLOATS))
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
