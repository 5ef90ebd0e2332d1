"""Starting or joining Ray, quietly, and what it has to offer."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import ray

HOUSE = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def ray_session() -> Iterator[dict[str, float]]:
    """Join the cluster of RAY_ADDRESS (set inside `ray job submit`), or start a local one; yields its resources.

    A Ray that is already initialised is used and left alone. A local one starts without dashboard and is shut down.
    """
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its errors are about itself; ours come as exceptions
    address = os.environ.get("RAY_ADDRESS")
    inside_a_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    modules = [str(HOUSE / name) for name in ("unicon", "pipelines")]
    ray.init(
        address=address or "local",
        include_dashboard=None if address else False,
        configure_logging=True,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"py_modules": modules} if address and not inside_a_job else None,
    )
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
