"""What the stages of a job request from the cluster. Tested in tests/pipelines/engine/test_flow.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the stages of a job request from the cluster.

    The fields about actors are those of the model stages that have none of their own.
    """

    actors: int = 1
    fewest_actors: int | None = None
    """Actors to start with; more are added, up to `actors`, while chunks wait for one. None: `actors`."""
    actors_per_node: int = 1
    """How many of the `actors` share a node if they are spread evenly; the CPUs of a node are divided by this."""
    samples: int | None = None
    """Samples that the actors will process; None: unknown."""
    gpus_per_actor: float = 0.0
    cpus_per_actor: float = 1.0
    cpus_per_task: float = 0.5
    """CPUs of a reading or publishing task; both mostly wait for storage, or decode images."""
    failed_chunks_allowed: int = 0
    """Chunks that may fail for reasons other than their samples before the run stops."""
    chunk_timeout_s: float | None = None
    """A worker that spends longer on one stage of a chunk is ended; None: never."""
    by_stage: Mapping[str, "Resources"] = field(default_factory=dict)
    """Name of a model stage -> its own resources."""

    def of(self, stage: str) -> "Resources":
        """Return the resources of a model stage."""
        return replace(self.by_stage[stage], samples=self.samples) if stage in self.by_stage else self

    @property
    def gpus(self) -> float:
        """GPUs that all actors hold together, when there are as many as there may be."""
        return sum(each.actors * each.gpus_per_actor for each in self.by_stage.values() or [self])
