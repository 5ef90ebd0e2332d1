"""What the data plane adds to the model: the job's flow beside the bare model loop on the same samples, in one run."""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.stand_in import StandIn, products_for, write_shards
from benchmarks.stand_in_job import task_run_of
from pipelines.dataset import layout
from pipelines.engine.flow import run_flow
from pipelines.images.codec import open_picture
from pipelines.planning.plan import Plan, make_plan
from pipelines.readers.sources import PictureShards
from pipelines.runs.placement import choose_resources
from pipelines.runs.request import Request
from pipelines.runs.task_run import TaskRun
from pipelines.samples import Columns
from unicon.options import SamplingOptions

WARM_CHUNKS = 2
"""Steady state begins when this many chunks are published."""


def add_options(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--samples", type=int, default=1280)
    parser.add_argument("--seconds", type=float, default=0.05, help="of the model, a sample (default: %(default)s)")
    parser.add_argument("--busy", action="store_true", help="the model computes on this CPU instead of sleeping")
    parser.add_argument("--model", help="`mini`, a folder or a hub id: a real model for depth instead of the stand-in")
    parser.add_argument("--steps", type=int, default=10, help="of a real model (default: %(default)s)")
    parser.add_argument("--size-px", type=int, default=512, help="side of the pictures (default: %(default)s)")
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)


def measure(options: Namespace) -> dict[str, Any]:
    """Bare loop, flow, bare loop again; all times in seconds."""
    from pipelines.engine.cluster import ray_session

    with tempfile.TemporaryDirectory() as name:
        folder = write_shards(Path(name) / "in", 1, options.samples, options.size_px)
        run, request, plan = planned(folder, Path(name) / "out", options, _stand_in(options))
        job, alone = run.as_job(), partial(bare_loop, model=run.model.build(), options=run.task.sampling)
        alone(replace(plan, chunks=plan.chunks[:WARM_CHUNKS]), batch_size=options.batch_size)
        bare_before_s = alone(plan, batch_size=options.batch_size)
        began = time.perf_counter()
        with ray_session() as available:
            ray_start_s = time.perf_counter() - began
            resources = choose_resources(request, available, can_grow=False)
            times = Times.of(run_flow(plan.chunks, job.make_flow(request.output, resources), resources))
        bare_s = (bare_before_s + alone(plan, batch_size=options.batch_size)) / 2
    return {"ray_start_s": ray_start_s, **times.beside(bare_s)}


def _stand_in(options: Namespace) -> StandIn | None:
    """None where a real model is named."""
    if options.model:
        return None
    return StandIn(products=products_for(options.seconds)) if options.busy else StandIn(seconds=options.seconds)


def planned(folder: Path, output: Path, options: Namespace, model: StandIn | None) -> tuple[TaskRun, Request, Plan]:
    """What jobs/estimate_depth.py would run on a folder of shards, cut into chunks."""
    arguments = ["--input", str(folder), "--output", str(output)]
    arguments += ["--chunk-size", str(options.chunk_size), "--batch-size", str(options.batch_size)]
    if model is None:
        arguments += ["--model", options.model, "--steps", str(options.steps), "--views", "1"]
    run, _ = task_run_of(arguments, model)
    job = run.as_job()
    measured = job.source.measure(job.source.find([str(folder)], str(output)), str(output), None)
    plan = make_plan(measured, layout.list_output(str(output)), "0" * 16, options.chunk_size)
    return run, Request(inputs=[str(folder)], output=str(output)), plan


def bare_loop(plan: Plan, model: Any, options: SamplingOptions, batch_size: int) -> float:
    """Seconds for the model alone, in the same micro-batches, on decoded pictures in memory.

    The pictures of an input repeat, so those of a few chunks stand for all.
    """
    source = PictureShards(columns=Columns())
    chunks = [[open_picture(sample.image, 1 << 30)[0] for sample in source.read(chunk)] for chunk in plan.chunks[:4]]
    began = time.perf_counter()
    for number in range(len(plan.chunks)):
        images = chunks[number % len(chunks)]
        for at in range(0, len(images), batch_size):
            model.estimate(images[at : at + batch_size], "depth", views=1, options=options)
    return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True)
class Times:
    """When receipts came, in seconds from the start of the flow, and how many samples each was for."""

    receipts: Sequence[tuple[float, int]]
    wall_s: float

    @classmethod
    def of(cls, flow: Any) -> Times:
        """Run the flow."""
        began = time.perf_counter()
        receipts = [(time.perf_counter() - began, receipt["ok"] + receipt["bad"]) for receipt in flow]
        return cls(receipts=receipts, wall_s=time.perf_counter() - began)

    def beside(self, bare_s: float) -> dict[str, Any]:
        """Ratios to the bare loop: of everything, and in steady state, from the WARM_CHUNKS-th receipt to the last."""
        samples = sum(count for _, count in self.receipts)
        steady = sum(count for _, count in self.receipts[WARM_CHUNKS:])
        steady_s = self.receipts[-1][0] - self.receipts[WARM_CHUNKS - 1][0]
        steady_bare_s = bare_s * steady / samples
        return {
            "samples": samples,
            "bare_s": bare_s,
            "flow_s": self.wall_s,
            "first_receipt_s": self.receipts[0][0],
            "steady_s": steady_s,
            "steady_bare_s": steady_bare_s,
            "steady_ratio": steady_s / steady_bare_s,
            "whole_ratio": self.wall_s / bare_s,
        }
