"""Training one rival, with the time and memory that it takes."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.rivals.recipe import FIT
from benchmarks.rivals.rival import Rival
from unicon.training.fit import fit

COST_FILE = "training.json"


@dataclass(frozen=True)
class Clock:
    """The seconds since it was started, beside those of interrupted runs before."""

    before: dict[str, Any]
    processor_s: float
    wall_s: float

    @classmethod
    def start(cls, folder: Path) -> Clock:
        """Start the clock of a training in its folder."""
        path = folder / COST_FILE
        before = json.loads(path.read_text()) if path.exists() else {"processor_s": 0.0, "wall_s": 0.0, "peak_mb": 0}
        return cls(before, time.process_time(), time.perf_counter())

    def cost(self) -> dict[str, Any]:
        """Seconds and the largest resident memory of the process so far."""
        return {
            "processor_s": round(self.before["processor_s"] + time.process_time() - self.processor_s, 1),
            "wall_s": round(self.before["wall_s"] + time.perf_counter() - self.wall_s, 1),
            "peak_mb": max(self.before["peak_mb"], peak_mb()),
        }


def peak_mb() -> int:
    """The largest resident memory of this process, in 10^6 bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6)


def train(rival: Rival, folder: Path, steps: int) -> dict[str, Any]:
    """Train until `steps`, and write the weights. If killed and started again, training resumes where it stopped.

    Returns:
        What the training has cost, also in `COST_FILE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock.start(folder)

    def on_checkpoint(step: int) -> None:
        rival.save(folder)
        cost = {"steps": step, "parameters": sum(each.numel() for each in rival.trained.values()), **clock.cost()}
        (folder / COST_FILE).write_text(json.dumps(cost) + "\n")

    fit(rival.trained, rival.loss, replace(FIT, steps=steps), folder, on_checkpoint, rival.loss.pairs_a_step)
    return json.loads((folder / COST_FILE).read_text())
