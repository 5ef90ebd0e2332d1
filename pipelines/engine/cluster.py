"""Starting or joining Ray, quietly, and what it has to offer."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

PROJECT_ROOT = Path(__file__).resolve().parents[2]
START_ATTEMPTS = 3


@contextlib.contextmanager
def ray_session() -> Iterator[Mapping[str, float]]:
    """Join the cluster of RAY_ADDRESS (set inside `ray job submit`), or start a local one; yields its resources.

    A Ray that is already initialised is used and left alone. A local one starts without dashboard and is shut down.
    """
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        start_local()
    else:
        modules = [str(PROJECT_ROOT / name) for name in ("unicon", "pipelines")]
        inside_a_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        _start(address=address, runtime_env=None if inside_a_job else {"py_modules": modules})
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def working_nodes() -> int:
    """How many machines of the cluster have CPUs for work."""
    return sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())


def start_local(num_cpus: int | None = None, num_gpus: int | None = None) -> None:
    """Start a Ray of this machine, without dashboard and telemetry, its workers at this process's niceness.

    num_cpus, num_gpus: what Ray shall believe there is; None: what there is.

    Ray's daemon waits 15 s for a process of its own and aborts when that comes up later, as it may on a busy machine:
    it is tried again then.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves a local run beside any other program
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # workers import this house wherever the command was started
    for attempt in range(START_ATTEMPTS):
        try:
            return _start(address="local", include_dashboard=False, num_cpus=num_cpus, num_gpus=num_gpus)
        except Exception as error:  # Ray raises a bare Exception
            if "timed out during startup" not in str(error) or attempt == START_ATTEMPTS - 1:
                raise
            ray.shutdown()


def _start(**options: Any) -> None:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its errors are about itself; ours come as exceptions
    with _start_quietly(), _handlers_kept():
        ray.init(configure_logging=True, logging_level=logging.ERROR, log_to_driver=False, **options)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put the caller's SIGTERM handler back: Ray replaces it by its own, which leaves with exit code 15."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _start_quietly() -> Iterator[None]:
    """Keep what Ray's native code prints while starting off the terminal; shown after all when the start fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
