"""Many actors with a sleeping model on few cores: whether the data plane keeps all of them at work."""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks.efficiency import Times, planned
from benchmarks.stand_in import StandIn, write_shards
from pipelines import runner
from pipelines.flow import run_flow

STEADY = (0.3, 0.9)
"""Part of the chunks between which the rate is taken: all actors are at work by then, and still are."""


def add_options(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--chunks-per-actor", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of the model, a sample (default: %(default)s)")
    parser.add_argument("--size-px", type=int, default=256, help="side of the pictures (default: %(default)s)")
    parser.add_argument("--chunk-size", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)


def measure(options: Namespace) -> dict[str, Any]:
    """By number of actors: samples a second in steady state over what so many models alone would do."""
    return {str(actors): _one_run(actors, options) for actors in options.actors}


def _one_run(actors: int, options: Namespace) -> dict[str, Any]:
    from pipelines.cluster import ray_session

    chunks = actors * options.chunks_per_actor
    with tempfile.TemporaryDirectory() as name:
        shards = write_shards(Path(name) / "in", actors, options.chunks_per_actor * options.chunk_size, options.size_px)
        job, request, plan = planned(shards, Path(name) / "out", options, StandIn(seconds=options.seconds))
        assert len(plan.chunks) == chunks
        request = runner.Request(inputs=request.inputs, output=request.output, actors=actors)
        with ray_session() as available:
            resources = runner.choose_resources(request, available, can_grow=False)
            times = Times.of(run_flow(plan.chunks, job.make_flow(request.output, resources), resources))
    first, last = (times.receipts[int(part * chunks) - 1] for part in STEADY)
    samples = sum(count for _, count in times.receipts[int(STEADY[0] * chunks) : int(STEADY[1] * chunks)])
    rate = samples / (last[0] - first[0])
    ideal = actors / options.seconds
    return {
        "samples_per_s": rate,
        "ideal_samples_per_s": ideal,
        "efficiency": rate / ideal,
        "first_receipt_s": times.receipts[0][0],
        "flow_s": times.wall_s,
    }
