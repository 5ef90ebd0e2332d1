"""How many model actors a run gets, on what, and whether the cluster has it."""

import math
from collections.abc import Mapping

from pipelines.errors import SettingError
from pipelines.runs.request import Request
from pipelines.engine.resources import Resources

FAILED_CHUNKS_ALLOWED = 10
"""One bad disk or machine does not stop a run of a million chunks; a systematic failure soon does."""


def choose_resources(request: Request, available: Mapping[str, float], can_grow: bool, nodes: int = 1) -> Resources:
    """One actor a GPU where there are GPUs, else one on the CPU.

    Where the cluster can grow, actors and GPUs an actor that are both asked for are taken at their word: it may start
    without GPUs and bring them when they are asked for. Of a range of actors the cluster must have room for the fewest.
    nodes: with CPUs; Ray Data spreads actors over them.

    Raises:
        SettingError: the cluster has not the GPUs that were asked for.
    """
    gpus = available.get("GPU", 0.0)
    per_actor = request.gpus_per_actor if request.gpus_per_actor is not None else float(gpus > 0)
    actors = request.actors or (max(1, int(gpus / per_actor)) if per_actor else 1)
    fewest = request.fewest_actors or actors
    taken_at_word = can_grow and request.actors is not None and request.gpus_per_actor is not None
    if per_actor * fewest > gpus and not taken_at_word:
        raise SettingError(
            f"{fewest} actors of {per_actor:g} GPUs need {per_actor * fewest:g} GPUs; the cluster has {gpus:g} now. "
            "On a cluster that scales up from none give both --actors and --num-gpus-per-actor; "
            "--num-gpus-per-actor 0 runs on the CPU."
        )
    cpus = 4.0 * actors if taken_at_word else available.get("CPU", 1.0)  # a head without work has no CPUs to share
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
    """`4 x 1 GPU`, or `1 to 8 x CPU`."""
    least, most = resources.fewest_actors or resources.actors, resources.actors
    device = f"{resources.gpus_per_actor:g} GPU" if resources.gpus_per_actor else "CPU"
    return f"{most if least == most else f'{least} to {most}'} x {device}"
