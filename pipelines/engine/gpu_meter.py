"""The GPU time of a run: how much its actors have used, and whether another chunk fits into a limit.

An actor holds its GPUs from the moment it starts to load its model until the run, or its wave of chunks, ends. The
meter lives in the ledger, which the actors tell what they do. At a limit, no chunk begins that may not be finished
before it: a chunk is expected to take as long as the slowest one so far, from the model to its publication. As long as
none has been published, chunks begin until the limit itself. A chunk that has begun is finished.

Tested in tests/pipelines/engine/test_gpu_meter.py.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.errors import FlowError


class GpuLimitError(FlowError):
    """The run has used the GPU time that it may use; chunks are left."""


@dataclass(kw_only=True)
class GpuTime:
    """The GPU time of a run in the driver, over all waves of chunks."""

    limit_s: float | None = None
    """GPU seconds that the run may use; None: no limit."""
    used_s: float = 0.0

    def meter(self) -> "GpuMeter":
        """Return the meter of the next wave, whose limit is what earlier waves have left."""
        left_s = math.inf if self.limit_s is None else self.limit_s - self.used_s
        return GpuMeter(limit_s=left_s)

    def error(self) -> GpuLimitError:
        """Return the error of a run at its limit."""
        used_hours, limit_hours = round(self.used_s / 3600, 4), (self.limit_s or 0.0) / 3600
        return GpuLimitError(
            f"the actors have held {used_hours:,} GPU hours, and another chunk might exceed --max-gpu-hours "
            f"{limit_hours:g}"
        )


@dataclass(kw_only=True)
class GpuMeter:
    """The GPU time of one wave of chunks, in the ledger."""

    limit_s: float = math.inf
    """GPU seconds, such as 7200 for one hour on two GPUs."""
    clock: Callable[[], float] = time.monotonic
    is_spent: bool = False
    """Whether no other chunk begins."""
    _held: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Actor -> its GPUs, and when it began to load its model for the first time."""
    _began_s: dict[str, float] = field(default_factory=dict)
    """Chunk in progress -> when the model began with it."""
    _longest_s: float = 0.0
    """The time of the slowest chunk so far."""

    def hold(self, actor: str, gpus: float) -> None:
        """Note that an actor holds its GPUs."""
        self._held.setdefault(actor, (gpus, self.clock()))

    @property
    def used_s(self) -> float:
        """GPU seconds of all actors so far."""
        now_s = self.clock()
        return sum(gpus * (now_s - since_s) for gpus, since_s in self._held.values())

    def begin(self, chunk: str, actor: str, gpus: float) -> bool:
        """Return whether an actor, which holds these GPUs, may begin with a chunk."""
        self.hold(actor, gpus)  # also if this ledger has lost its memory
        reserve_s = sum(gpus for gpus, _ in self._held.values()) * self._longest_s
        self.is_spent = self.is_spent or self.used_s + reserve_s > self.limit_s
        if self.is_spent:
            self._began_s.pop(chunk, None)  # its worker has died
        else:
            self._began_s[chunk] = self.clock()
        return not self.is_spent

    def end(self, chunk: str, succeeded: bool) -> None:
        """Note that a chunk was published, or failed."""
        began_s = self._began_s.pop(chunk, None)
        if succeeded and began_s is not None:
            self._longest_s = max(self._longest_s, self.clock() - began_s)

    @property
    def is_over(self) -> bool:
        """Whether no other chunk begins and none is in progress."""
        return self.is_spent and not self._began_s
