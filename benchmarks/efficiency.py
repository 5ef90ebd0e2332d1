"""Overhead of the data plane: the pipeline of a job compared with a bare model loop on the same samples, in one run."""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fake_model import FakeModel, products_for, write_shards
from benchmarks.fake_model_job import task_run_of
from pipelines.dataset import layout
from pipelines.engine.flow import run_flow
from pipelines.images.codec import open_image
from pipelines.planning.plan import Plan, make_plan
from pipelines.readers.sources import ImageShards
from pipelines.runs.placement import choose_resources
from pipelines.runs.request import RunRequest
from pipelines.runs.task_run import TaskRun
from pipelines.samples import Columns
from pipelines.tasks.estimation import Estimation
from pipelines.tasks.model import UniConModel
from unicon.options import SamplingOptions

WARM_CHUNKS = 6
"""Number of published chunks after which the steady state begins: the first ones wait for workers that publish, while
the model is already ahead of them."""


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--samples", type=int, default=1280)
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[0.05, 0.02], help="model times per sample (default: 0.05 0.02)"
    )
    parser.add_argument("--busy", action="store_true", help="the model computes on this CPU instead of sleeping")
    parser.add_argument("--model", help="`mini`, a folder or a hub id: a real depth model instead of the fake one")
    parser.add_argument("--steps", type=int, default=10, help="sampling steps of a real model (default: %(default)s)")
    parser.add_argument("--size-px", type=int, default=512, help="side of the images (default: %(default)s)")
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="repetitions, of which the median ratio is reported")


def measure(options: Namespace) -> dict[str, Any]:
    """Measure the bare loop, the pipeline, and the bare loop again, for every model; all times are in seconds."""
    from pipelines.engine.cluster import ray_session

    models = (
        {"model": None}
        if options.model
        else {f"{each:g} s": _fake_model(each, options.busy) for each in options.seconds}
    )
    with tempfile.TemporaryDirectory() as name:
        folder = write_shards(Path(name) / "in", 1, options.samples, options.size_px)
        began = time.perf_counter()
        with ray_session() as available:
            results: dict[str, Any] = {"ray_start_s": time.perf_counter() - began}
            for label, model in models.items():
                outputs = [Path(name) / f"{label}-{number}" for number in range(options.rounds)]
                rounds = [_round(options, folder, output, model, available) for output in outputs]
                results[label] = sorted(rounds, key=lambda each: each["steady_ratio"])[len(rounds) // 2]
                results[label]["steady_ratios"] = [each["steady_ratio"] for each in rounds]
    return results


def _round(
    options: Namespace, folder: Path, output: Path, fake: FakeModel | None, available: Mapping[str, float]
) -> dict[str, Any]:
    run, request, plan = planned(folder, output, options, fake)
    job, task, model = run.as_job(), run.task, run.model
    assert isinstance(task, Estimation) and isinstance(model, FakeModel | UniConModel)
    alone = partial(bare_loop, model=model.build(), options=task.sampling)
    alone(replace(plan, chunks=plan.chunks[:WARM_CHUNKS]), batch_size=options.batch_size)
    bare_before_s = alone(plan, batch_size=options.batch_size)
    resources = choose_resources(request, available, can_grow=False)
    times = Times.of(run_flow(plan.chunks, job.make_flow(request.output, resources), resources))
    return times.beside((bare_before_s + alone(plan, batch_size=options.batch_size)) / 2)


def _fake_model(seconds: float, is_busy: bool) -> FakeModel:
    return FakeModel(products=products_for(seconds)) if is_busy else FakeModel(seconds=seconds)


def planned(
    folder: Path, output: Path, options: Namespace, model: FakeModel | None
) -> tuple[TaskRun, RunRequest, Plan]:
    """Plan what jobs/estimate_depth.py would run on a folder of shards."""
    arguments = ["--input", str(folder), "--output", str(output)]
    arguments += ["--chunk-size", str(options.chunk_size), "--batch-size", str(options.batch_size)]
    if model is None:
        arguments += ["--model", options.model, "--steps", str(options.steps), "--views", "1"]
    run, _ = task_run_of(arguments, model)
    job = run.as_job()
    measured = job.source.measure(job.source.find([str(folder)], str(output)), str(output), None)
    plan = make_plan(measured, layout.list_output(str(output)), "0" * 16, options.chunk_size)
    return run, RunRequest(inputs=[str(folder)], output=str(output)), plan


def bare_loop(plan: Plan, model: Any, options: SamplingOptions, batch_size: int) -> float:
    """Return the seconds of the model alone, with the same micro-batches, on decoded images in memory.

    The images of an input repeat, so those of a few chunks represent all.
    """
    source = ImageShards(columns=Columns())
    chunks = [[open_image(sample.image, 1 << 30)[0] for sample in source.read(chunk)] for chunk in plan.chunks[:4]]
    began = time.perf_counter()
    for number in range(len(plan.chunks)):
        images = chunks[number % len(chunks)]
        for at in range(0, len(images), batch_size):
            model.estimate(images[at : at + batch_size], "depth", num_views=1, options=options)
    return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times of the receipts, in seconds from the start of the pipeline, and what they count."""

    receipts: Sequence[tuple[float, int, float]]
    """Time, number of samples, and seconds in which the device worked for them."""
    wall_s: float

    @classmethod
    def of(cls, flow: Any) -> Times:
        """Run the pipeline and record its times."""
        began = time.perf_counter()
        receipts = [
            (time.perf_counter() - began, receipt["ok"] + receipt["bad"], receipt["device_s"]) for receipt in flow
        ]
        return cls(receipts=receipts, wall_s=time.perf_counter() - began)

    def beside(self, bare_s: float) -> dict[str, Any]:
        """Return ratios to the bare loop: overall, and in steady state, from receipt WARM_CHUNKS or halfway."""
        samples = sum(count for _, count, _ in self.receipts)
        warm = min(WARM_CHUNKS, len(self.receipts) // 2)
        steady = sum(count for _, count, _ in self.receipts[warm:])
        steady_s = self.receipts[-1][0] - self.receipts[warm - 1][0]
        steady_bare_s = bare_s * steady / samples
        return {
            "samples": samples,
            "bare_s": bare_s,
            "flow_s": self.wall_s,
            "first_receipt_s": self.receipts[0][0],
            "steady_s": steady_s,
            "steady_bare_s": steady_bare_s,
            "steady_ratio": steady_s / steady_bare_s,
            "device_busy_share": sum(device_s for _, _, device_s in self.receipts[warm:]) / steady_s,
            "whole_ratio": self.wall_s / bare_s,
        }
