# Ray declares scheduling strategies and actor handles too narrowly.
# pyright: reportArgumentType=false
"""The ledger of attempts as an actor, and how the workers call it.

Tested in tests/pipelines/engine/test_worker_deaths.py.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.engine.attempts import Attempt, building, supervised
from pipelines.engine.gpu_meter import GpuMeter
from pipelines.engine.ledger import Ledger
from pipelines.engine.turns import Turns


@dataclass(frozen=True)
class LedgerClient:
    """The workers' access to the ledger."""

    ledger: Any
    """The handle of the actor."""
    chunk_timeout_s: float | None
    is_limited: bool = False
    """Whether the GPU time of the run has a limit."""

    def attempt(
        self, stage: str, name: str, failed_before: bool = False, turns: Turns | None = None
    ) -> AbstractContextManager[Attempt]:
        """Enclose a stage of a chunk; see `attempts.supervised`."""
        return supervised(
            self.ask,
            stage,
            name,
            worker=_worker(),
            node=ray.get_runtime_context().get_node_id(),
            failed_before=failed_before,
            limit_s=self.chunk_timeout_s,
            turns=turns,
        )

    def building(self, gpus: float) -> AbstractContextManager[None]:
        """Enclose the loading of a model in an actor that holds these GPUs; see `attempts.building`."""
        return building(self.ask, _worker(), self.chunk_timeout_s, gpus)

    def may_read(self) -> bool:
        """Whether the limit of GPU time allows other chunks."""
        return not (self.is_limited and self.ask("gpu_time_is_spent"))

    def may_begin(self, name: str, gpus: float) -> bool:
        """Whether the limit of GPU time allows this actor, which holds these GPUs, to begin with a chunk."""
        return not self.is_limited or self.ask("may_begin", name, _worker(), gpus)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the ledger, without `ray.get`, which would lend this worker's CPU to others."""
        return getattr(self.ledger, method).remote(*arguments).future().result()


@contextmanager
def open_ledger(chunk_timeout_s: float | None, meter: GpuMeter | None = None) -> Iterator[LedgerClient]:
    """Run a ledger on the node of the driver: if that node is lost, so is the run."""
    meter = meter or GpuMeter()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    ledger: Any = ray.remote(**options)(Ledger).remote(_node_is_lost, chunk_timeout_s, meter=meter)
    try:
        yield LedgerClient(ledger, chunk_timeout_s, is_limited=math.isfinite(meter.limit_s))
    finally:
        ray.kill(ledger)


def _worker() -> str:
    """ID of this actor, which its successor processes share; in a task, ID of the node."""
    context = ray.get_runtime_context()
    return context.get_actor_id() or context.get_node_id()


def _node_is_lost(node: str) -> bool:
    return any(known["NodeID"] == node and not known["Alive"] for known in ray.nodes())
