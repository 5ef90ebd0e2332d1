"""What the stages of a job ask of the cluster."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the stages ask of the cluster."""

    actors: int = 1
    fewest_actors: int | None = None
    """Actors to start with; up to `actors` follow while chunks wait for one. None: `actors`."""
    actors_per_node: int = 1
    """Of `actors`, where they are spread evenly: what a node's CPUs are divided by."""
    gpus_per_actor: float = 0.0
    cpus_per_actor: float = 1.0
    cpus_per_task: float = 0.5
    """Of a reading or publishing task; both mostly wait for storage, or decode pictures."""
    failed_chunks_allowed: int = 0
    """Chunks that may fail for reasons other than their samples before the run stops."""
    chunk_timeout_s: float | None = None
    """A worker that takes longer at one stage of a chunk is ended; None: never."""
