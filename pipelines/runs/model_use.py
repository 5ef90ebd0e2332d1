"""How well a run uses its models: the busy share and the rate of its actors, and what the rest of the run will take.

Of several models, through which every sample passes, the slowest one sets the rate: its numbers are those of the run.

The numbers come from the actors with the receipts of chunks; `pipelines.stages.model_time` defines them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.engine.blocks import MODEL
from pipelines.engine.resources import Resources

MAX_POINTS = 120
"""Points of the chart; when there are more, every second one is dropped."""


@dataclass(kw_only=True)
class ModelUse:
    """The latest numbers of every actor of a run, or of one of its models."""

    resources: Resources = field(default_factory=Resources)
    actors: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Actor -> its latest report."""
    gpu_s: float = 0.0
    """Seconds for which the actors have held GPUs, times GPUs."""
    device_s: float = 0.0
    """Seconds in which the devices worked for published chunks, over all actors."""
    batch_size: int = 0
    """The largest batch so far."""
    engines: dict[str, "ModelUse"] = field(default_factory=dict)
    """Stage -> the numbers of its model, if the job has several."""

    def add(self, receipt: Mapping[str, Any]) -> None:
        """Take what the receipt of a chunk says about its actor."""
        self.gpu_s = max(self.gpu_s, receipt.get("gpu_s", 0.0))
        for stage, used in receipt.get("engines", {}).items():
            self.engines.setdefault(stage, ModelUse(resources=self.resources.of(stage))).add(used)
        self.device_s += receipt.get("device_s", 0.0)
        self.batch_size = max(self.batch_size, receipt.get("batch_size", 0))
        report: Mapping[str, Any] = receipt.get("model") or {}
        latest = self.actors.get(report.get("actor", ""), report)
        if report and report["passed_s"] >= latest["passed_s"]:
            self.actors[report["actor"]] = report

    @property
    def slowest_name(self) -> str:
        """The stage of the model with the lowest rate; `model` if there is one model, or no rate is known yet."""
        rates = {stage: each.rows_per_s for stage, each in self.engines.items()}
        known = {stage: rate for stage, rate in rates.items() if rate is not None}
        return min(known, key=lambda stage: known[stage], default=MODEL)

    @property
    def _slowest(self) -> "ModelUse":
        return self.engines.get(self.slowest_name, self)

    @property
    def busy_share(self) -> float | None:
        """Share of the time of all actors in which their device worked, 0 to 1; None: not known yet."""
        if self._slowest is not self:
            return self._slowest.busy_share
        passed_s = self._total("passed_s")
        return self._total("busy_s") / passed_s if passed_s else None

    @property
    def rows_per_s(self) -> float | None:
        """Rows per second of the models of all actors if they never waited; None: not known yet.

        It is the mean rate of an actor times the number of actors of the run, the largest number if that may vary.
        """
        if self._slowest is not self:
            return self._slowest.rows_per_s
        rows_s = self._total("rows_s")
        return self.resources.actors * self._total("rows") / rows_s if rows_s else None

    @property
    def gpus(self) -> float:
        """GPUs that all actors of the run hold together."""
        return self.resources.gpus

    @property
    def compiling(self) -> dict[str, Any] | None:
        """What compiling did, see `unicon.compilation`: the most shapes of an actor, and the seconds of all actors."""
        uses = (self, *self.engines.values())
        found = [report["compile"] for use in uses for report in use.actors.values() if "compile" in report]
        if not found:
            return None
        counts = {name: max(each[name] for each in found) for name in ("shapes", "compiled", "from_cache")}
        seconds = round(sum(each["seconds"] for each in found), 1)
        failure = next(({"failure": each["failure"]} for each in found if "failure" in each), {})
        return {"mode": found[0]["mode"], **counts, "seconds": seconds, **failure}

    def forecast(self, rows_left: int, max_gpu_hours: float | None = None) -> str | None:
        """Say how long the rest of the run will take at the rate of the models; None: the rate is not known yet.

        The run takes longer if the models must wait for data: the busy share says how much.
        """
        rate = self.rows_per_s
        if not rate:
            return None
        left_s = rows_left / rate
        who = f"{self.slowest_name}, the slowest, computes" if self.engines else "the models compute"
        text = f"{who} {number(rate)} samples/s: the rest takes about {duration(left_s)}"
        if not self.gpus:
            actors = self._slowest.resources.actors
            return f"{text} on {actors} {'actor' if actors == 1 else 'actors'}"
        hours, spent = self.gpus * left_s / 3600, self.gpu_s / 3600
        text += f", {number(hours)} GPU hours on {self.gpus:g} {'GPU' if self.gpus == 1 else 'GPUs'}"
        if max_gpu_hours is None or spent + hours <= max_gpu_hours:
            return text
        return f"{text}; --max-gpu-hours {max_gpu_hours:g} ends the run before that"

    def _total(self, name: str) -> float:
        return sum(report[name] for report in self.actors.values())


@dataclass(kw_only=True)
class History:
    """A few points over the time of a run, for a chart: elapsed seconds, samples done, and the busy share so far."""

    interval_s: float = 1.0
    points: list[tuple[float, int, float | None]] = field(default_factory=list)

    def add(self, elapsed_s: float, done: int, busy_share: float | None) -> None:
        """Add a point, unless the last one is too recent."""
        if self.points and elapsed_s - self.points[-1][0] < self.interval_s:
            return
        share = None if busy_share is None else round(busy_share, 4)
        self.points.append((round(elapsed_s, 2), done, share))
        if len(self.points) > MAX_POINTS:
            self.points = self.points[1::2]
            self.interval_s *= 2


def number(value: float) -> str:
    """Format a number for people, such as `3,160`, `26.7` or `0.0047`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Format a duration for people, such as `3 h 20 min`, `12 min` or `40 s`."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"
