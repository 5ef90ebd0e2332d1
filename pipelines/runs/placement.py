"""The number of model actors of a run, their devices, and whether the cluster has them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipelines.engine.blocks import MODEL
from pipelines.engine.resources import Resources
from pipelines.errors import SettingError
from pipelines.runs.request import ActorRequest, RunRequest

FAILED_CHUNKS_ALLOWED = 10
"""One bad disk or machine must not stop a run of a million chunks; a systematic failure must stop it soon."""
ROUNDING = 1e-6
"""Thirds of a GPU may add up to slightly more than one."""


def choose_resources(request: RunRequest, available: Mapping[str, float], can_grow: bool, nodes: int = 1) -> Resources:
    """Choose one actor for each GPU, or one actor on the CPU if the cluster has no GPUs.

    Several models share the GPUs: every GPU has one actor of each model. If the cluster can grow, a request for both
    actors and GPUs per actor is not checked: the cluster may start without GPUs and add them on demand. For a range of
    actors, the cluster must have room for the smallest number.

    Args:
        request: What the run was asked to do.
        available: The resources of the cluster.
        can_grow: Whether the cluster may add nodes.
        nodes: Number of nodes with CPUs, over which Ray Data distributes actors.

    Raises:
        SettingError: The cluster does not have the requested GPUs, or their time is limited and none is used.
    """
    asked = request.engines or {MODEL: ActorRequest.of(request)}
    gpus = available.get("GPU", 0.0)
    pools = {name: _pool(each, gpus, sum(other.gpus_per_actor != 0 for other in asked.values()))
             for name, each in asked.items()}  # fmt: skip
    is_trusted = can_grow and all(None not in (each.actors, each.gpus_per_actor) for each in asked.values())
    _check_gpus(request, pools, math.inf if is_trusted else gpus)
    actors = sum(pool.actors for pool in pools.values())
    cpus = 4.0 * actors if is_trusted else available.get("CPU", 1.0)  # a head node without workers may have no CPUs
    whole = Resources(
        actors=actors,
        fewest_actors=sum(pool.fewest_actors or pool.actors for pool in pools.values()),
        actors_per_node=math.ceil(actors / max(1, nodes)),
        gpus_per_actor=_mean_gpus(list(pools.values())),
        cpus_per_actor=min(1.0, cpus / (2 * actors)),
        cpus_per_task=min(0.5, cpus / 4),
        failed_chunks_allowed=FAILED_CHUNKS_ALLOWED,
        chunk_timeout_s=request.chunk_timeout_s,
    )
    own = ("actors", "fewest_actors", "gpus_per_actor")
    by_stage = {
        name: replace(whole, **{field: getattr(pool, field) for field in own})
        for name, pool in pools.items()
        if request.engines
    }
    return replace(whole, by_stage=by_stage)


def _pool(asked: ActorRequest, gpus: float, sharing: int) -> Resources:
    """Return the actors of one model and their GPUs, of which `sharing` models have a part."""
    per_actor = asked.gpus_per_actor if asked.gpus_per_actor is not None else (gpus > 0) / sharing
    room = per_actor if sharing == 1 else max(1.0, per_actor)
    actors = asked.actors or (max(1, int(gpus / room)) if per_actor else 1)
    return Resources(actors=actors, fewest_actors=asked.fewest_actors or actors, gpus_per_actor=per_actor)


def _mean_gpus(pools: Sequence[Resources]) -> float:
    """Return the GPUs of an actor, on average over all models."""
    if len(pools) == 1:
        return pools[0].gpus_per_actor
    return sum(pool.gpus for pool in pools) / sum(pool.actors for pool in pools)


def _check_gpus(request: RunRequest, pools: Mapping[str, Resources], gpus: float) -> None:
    """Raise SettingError for actors that have no room on the GPUs, and for a limit of GPU time without GPUs."""
    fewest = sum(pool.fewest_actors or pool.actors for pool in pools.values())
    needed = sum((pool.fewest_actors or pool.actors) * pool.gpus_per_actor for pool in pools.values())
    each = " and ".join(dict.fromkeys(f"{pool.gpus_per_actor:g}" for pool in pools.values()))
    if needed > gpus + ROUNDING:
        raise SettingError(
            f"{fewest} actors of {each} GPUs need {needed:g} GPUs; the cluster has {gpus:g} now. "
            "For a cluster that scales up from zero, give both --actors and --num-gpus-per-actor; to run on the CPU, "
            "give --num-gpus-per-actor 0."
        )
    if request.max_gpu_hours is not None and not needed:
        raise SettingError(
            f"--max-gpu-hours {request.max_gpu_hours:g} limits the time on GPUs; this run uses none. Leave it out, or "
            "give --num-gpus-per-actor."
        )


def describe(resources: Resources) -> str:
    """Describe the actors, such as `4 x 1 GPU` or `1 to 8 x CPU`; of several models, each with its name."""
    if resources.by_stage:
        return ", ".join(f"{stage}: {describe(own)}" for stage, own in resources.by_stage.items())
    least, most = resources.fewest_actors or resources.actors, resources.actors
    device = f"{resources.gpus_per_actor:g} GPU" if resources.gpus_per_actor else "CPU"
    return f"{most if least == most else f'{least} to {most}'} x {device}"
