"""Rate of a corpus of several engines, compared with the slowest engine alone on the same images, in one run.

    python -m benchmarks.corpus --samples 2000 --seconds 0.1 0.03 0.01 --json benchmarks/results/corpus.json

The engines sleep for a time per image, like models on other devices, and return real maps; reading, scores, encoding
and publishing are those of jobs/build_corpus.py. A chunk passes through the engines one after the other while others
are at other engines, so that the slowest one should set the rate. Reported are the ratio in steady state, from the
first third of the published images to the last, and that of the whole run without the start of Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.fake_model import FakeModel, write_shards
from jobs import _corpus, build_corpus
from pipelines.dataset import layout
from pipelines.engine.flow import run_flow
from pipelines.images.codec import open_image
from pipelines.planning.plan import Plan, make_plan
from pipelines.readers.sources import ImageShards
from pipelines.runs.placement import choose_resources
from pipelines.runs.row_run import TaskStage
from pipelines.samples import Columns
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.estimation import Estimation


def main() -> None:
    """Measure, print, and optionally write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[0.1, 0.03, 0.01], help="times per image, one for each engine"
    )
    parser.add_argument("--size-px", type=int, default=512)
    parser.add_argument("--chunk-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {
        "command": "python -m benchmarks.corpus " + " ".join(sys.argv[1:]),
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start",
        **measure(options),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(options: Namespace) -> dict[str, Any]:
    """Measure the bare loop of the slowest engine, the corpus, and the loop again."""
    from pipelines.engine.cluster import ray_session

    with tempfile.TemporaryDirectory() as name:
        folder = write_shards(Path(name) / "in", 2, options.samples // 2, options.size_px)
        arguments = ["--input", str(folder), "--output", f"{name}/out", "--chunk-size", str(options.chunk_size)]
        names = [word for number in range(len(options.seconds)) for word in ("--condition", f"map{number}=unicon")]
        parsed = build_corpus.parse([*arguments, *names, "--batch-size", str(options.batch_size)])
        run, engines = build_corpus.corpus_run(parsed, fake_engines(options))
        job, request = run.as_job(), _corpus.request_of(parsed, engines)
        measured = job.source.measure(job.source.find([str(folder)], request.output), request.output, None)
        plan = make_plan(measured, layout.list_output(request.output), "0" * 16, options.chunk_size)
        slowest = FakeModel(seconds=max(options.seconds))
        before = bare_rate(plan, slowest, options.batch_size)
        with ray_session() as available:
            resources = choose_resources(request, available, can_grow=False)
            began = time.perf_counter()
            receipts = [
                (time.perf_counter() - began, receipt["ok"], receipt)
                for receipt in run_flow(plan.chunks, job.make_flow(request.output, resources), resources)
            ]
        bare = (before + bare_rate(plan, slowest, options.batch_size)) / 2
    return summary(receipts, bare)


def fake_engines(options: Namespace) -> list[_corpus.Engine]:
    """Return the engines: each estimates a column of its own."""
    engines = []
    for number, seconds in enumerate(options.seconds):
        condition = ConditionColumn(name=f"map{number}", kind="depth")
        task = Estimation(conditions=(condition,), max_pixels=1 << 30)
        stage = TaskStage(
            task=task, model=FakeModel(seconds=seconds), batch_size=options.batch_size, name=f"model {condition.name}"
        )
        engines.append(_corpus.Engine(stage=stage, names=(condition.name,), conditions=(condition,), is_light=True))
    return engines


def bare_rate(plan: Plan, model: FakeModel, batch_size: int, batches: int = 50) -> float:
    """Return the images per second of an engine alone on decoded images in memory."""
    samples = ImageShards(columns=Columns()).read(replace(plan.chunks[0], stop=plan.chunks[0].start + batch_size))
    images = [open_image(sample.image, 1 << 30)[0] for sample in samples]
    began = time.perf_counter()
    for _ in range(batches):
        model.estimate(images, "depth")
    return batches * len(images) / (time.perf_counter() - began)


def summary(receipts: Sequence[tuple[float, int, Mapping[str, Any]]], bare: float) -> dict[str, Any]:
    """Return the rates and their ratios to the bare rate of the slowest engine."""
    samples, first = sum(count for _, count, _ in receipts), len(receipts) // 3
    steady = sum(count for _, count, _ in receipts[first + 1 :]) / (receipts[-1][0] - receipts[first][0])
    whole = samples / receipts[-1][0]
    last = receipts[-1][2]
    return {
        "samples": samples,
        "bare rate of the slowest engine, images/s": round(bare, 3),
        "steady rate, images/s": round(steady, 3),
        "steady ratio": round(steady / bare, 4),
        "whole run, images/s": round(whole, 3),
        "ratio of the whole run": round(whole / bare, 4),
        "first chunk after s": round(receipts[0][0], 2),
        "seconds per image in reading and publishing": {
            stage: round(sum(each["seconds"][stage] for _, _, each in receipts) / samples, 4)
            for stage in ("read", "publish")
        },
        "busy share": {
            stage: round(used["model"]["busy_s"] / used["model"]["passed_s"], 3)
            for stage, used in last["engines"].items()
        },
    }


if __name__ == "__main__":
    main()
