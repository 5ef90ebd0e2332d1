"""The metrics of the jobs. Ray exports them to Prometheus on every node of a cluster, together with its own metrics.

They are recorded only if Ray runs; the stages work without Ray, too. `deploy/grafana/` has a dashboard for them.
"""

import sys
from functools import cache
from typing import Any

COUNTERS = {
    "unicon_samples": "Rows published in data/",
    "unicon_errors": "Samples published in errors/, by the stage that refused them",
    "unicon_seconds": "Seconds spent inside a stage; waiting between the stages is not counted",
}
GAUGES = {
    "unicon_batch_size": "Rows of the largest batch of the last chunk that fit into memory",
    "unicon_model_busy_share": "Share of the time since an actor's last chunk that its model computed, 0 to 1",
    "unicon_model_rows_per_s": "Rows per second that an actor's model computes if it never waits",
}
TAGS = ("job", "stage")


def exported_name(name: str) -> str:
    """The name of a counter or gauge in Prometheus."""
    return f"ray_{name}_total" if name in COUNTERS else f"ray_{name}"


def add(name: str, value: float, job: str, stage: str) -> None:
    """Increase a counter."""
    if value > 0 and _ray_runs():
        _metric(name).inc(value, {"job": job, "stage": stage})


def show(name: str, value: float, job: str, stage: str) -> None:
    """Set a gauge of this process."""
    if _ray_runs():
        _metric(name).set(value, {"job": job, "stage": stage})


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@cache
def _metric(name: str) -> Any:
    from ray.util.metrics import Counter, Gauge

    kind, descriptions = (Counter, COUNTERS) if name in COUNTERS else (Gauge, GAUGES)
    return kind(name, descriptions[name], TAGS)
