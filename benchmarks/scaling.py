"""Many actors with a sleeping model on few cores: whether the data plane keeps all of them busy.

The models record when they work. Efficiency is the share of time during which they work, from the start of the last
model until no more than CHUNKS_AHEAD chunks per model are left, which have already been handed out.
"""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.efficiency import planned
from benchmarks.fake_model import FakeModel, read_log, write_shards
from pipelines.engine.flow import run_flow
from pipelines.runs.placement import choose_resources
from pipelines.runs.request import RunRequest

CHUNKS_AHEAD = 2
"""Number of chunks that Ray Data hands to an actor in advance."""


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--chunks-per-actor", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="model time per sample (default: %(default)s)")
    parser.add_argument("--size-px", type=int, default=256, help="side of the images (default: %(default)s)")
    parser.add_argument("--chunk-size", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)


def measure(options: Namespace) -> dict[str, Any]:
    """Return how busy the models were and how long the run took, by number of actors."""
    return {str(actors): _one_run(actors, options) for actors in options.actors}


def _one_run(actors: int, options: Namespace) -> dict[str, Any]:
    from pipelines.engine.cluster import ray_session

    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        log.mkdir()
        shards = write_shards(Path(name) / "in", actors, options.chunks_per_actor * options.chunk_size, options.size_px)
        model = FakeModel(seconds=options.seconds, log=str(log))
        run, request, plan = planned(shards, Path(name) / "out", options, model)
        request = RunRequest(inputs=request.inputs, output=request.output, actors=actors)
        with ray_session() as available:
            resources = choose_resources(request, available, can_grow=False)
            began = time.time()
            samples = sum(receipt["ok"] for receipt in run_flow(plan.chunks, _flow(run, request, resources), resources))
            ended = time.time()
        return {"samples": samples, "flow_s": ended - began, **busy(read_log(log), began, CHUNKS_AHEAD)}


def _flow(run: Any, request: RunRequest, resources: Any) -> Any:
    return run.as_job().make_flow(request.output, resources)


def busy(calls: Sequence[Sequence[tuple[float, float]]], began: float, ahead: int) -> dict[str, Any]:
    """Compute the share of time during which the models work.

    Args:
        calls: The calls of every model as (start, end).
        began: Start of the pipeline.
        ahead: Number of calls that wait for each model.

    Raises:
        ValueError: The work is done before all models have started.
    """
    begins = sorted(begin for model in calls for begin, _ in model)
    first, last = begins[0], max(end for model in calls for _, end in model)
    all_began = max(model[0][0] for model in calls)
    steady_end = begins[max(0, len(begins) - ahead * len(calls))]
    if steady_end <= all_began:
        raise ValueError("the work must last until all models have started; it did not. Use more chunks per actor.")
    return {
        "models": len(calls),
        "first_call_s": first - began,
        "all_at_work_s": all_began - began,
        "steady_s": steady_end - all_began,
        "efficiency": _share(calls, all_began, steady_end),
        "efficiency_with_start_and_end": _share(calls, first, last),
    }


def _share(calls: Sequence[Sequence[tuple[float, float]]], start: float, end: float) -> float:
    work = sum(max(0.0, min(ended, end) - max(began, start)) for model in calls for began, ended in model)
    return work / (len(calls) * (end - start))
