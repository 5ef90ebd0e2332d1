"""The number of model actors of a run, their devices, and whether the cluster has them."""

import math
from collections.abc import Mapping

from pipelines.engine.resources import Resources
from pipelines.errors import SettingError
from pipelines.runs.request import RunRequest

FAILED_CHUNKS_ALLOWED = 10
"""One bad disk or machine must not stop a run of a million chunks; a systematic failure must stop it soon."""


def choose_resources(request: RunRequest, available: Mapping[str, float], can_grow: bool, nodes: int = 1) -> Resources:
    """Choose one actor for each GPU, or one actor on the CPU if the cluster has no GPUs.

    If the cluster can grow, a request for both actors and GPUs per actor is not checked: the cluster may start without
    GPUs and add them on demand. For a range of actors, the cluster must have room for the smallest number.

    Args:
        request: What the run was asked to do.
        available: The resources of the cluster.
        can_grow: Whether the cluster may add nodes.
        nodes: Number of nodes with CPUs, over which Ray Data distributes actors.

    Raises:
        SettingError: The cluster does not have the requested GPUs, or their time is limited and none is used.
    """
    gpus = available.get("GPU", 0.0)
    per_actor = request.gpus_per_actor if request.gpus_per_actor is not None else float(gpus > 0)
    actors = request.actors or (max(1, int(gpus / per_actor)) if per_actor else 1)
    fewest = request.fewest_actors or actors
    is_trusted = can_grow and request.actors is not None and request.gpus_per_actor is not None
    if per_actor * fewest > gpus and not is_trusted:
        raise SettingError(
            f"{fewest} actors of {per_actor:g} GPUs need {per_actor * fewest:g} GPUs; the cluster has {gpus:g} now. "
            "For a cluster that scales up from zero, give both --actors and --num-gpus-per-actor; to run on the CPU, "
            "give --num-gpus-per-actor 0."
        )
    if request.max_gpu_hours is not None and not per_actor:
        raise SettingError(
            f"--max-gpu-hours {request.max_gpu_hours:g} limits the time on GPUs; this run uses none. Leave it out, or "
            "give --num-gpus-per-actor."
        )
    cpus = 4.0 * actors if is_trusted else available.get("CPU", 1.0)  # a head node without workers may have no CPUs
    return Resources(
        actors=actors,
        fewest_actors=fewest,
        actors_per_node=math.ceil(actors / max(1, nodes)),
        gpus_per_actor=per_actor,
        cpus_per_actor=min(1.0, cpus / (2 * actors)),
        cpus_per_task=min(0.5, cpus / 4),
        failed_chunks_allowed=FAILED_CHUNKS_ALLOWED,
        chunk_timeout_s=request.chunk_timeout_s,
    )


def describe(resources: Resources) -> str:
    """Describe the actors, such as `4 x 1 GPU` or `1 to 8 x CPU`."""
    least, most = resources.fewest_actors or resources.actors, resources.actors
    device = f"{resources.gpus_per_actor:g} GPU" if resources.gpus_per_actor else "CPU"
    return f"{most if least == most else f'{least} to {most}'} x {device}"
