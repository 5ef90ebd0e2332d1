"""Starting or joining Ray without noise on the terminal, and the resources that it offers.

Tested in tests/jobs/test_job_submit.py.
"""

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

    If Ray is already initialized, it is used as it is and not shut down. A local cluster starts without a dashboard and
    is shut down at the end.
    """
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        start_local()
    else:
        modules = [str(PROJECT_ROOT / name) for name in ("unicon", "engines", "pipelines")]
        inside_a_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        _start(address=address, runtime_env=None if inside_a_job else {"py_modules": modules})
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def working_nodes() -> int:
    """The number of nodes of the cluster that have CPUs for work."""
    return sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())


def start_local(num_cpus: int | None = None, num_gpus: int | None = None) -> None:
    """Start a local cluster, without dashboard and telemetry, whose workers have the niceness of this process.

    Ray's daemon waits 15 s for one of its own processes and aborts if that process starts later, as it may on a busy
    machine. In this case the start is repeated.

    Args:
        num_cpus: CPUs of the cluster; None: those of this machine.
        num_gpus: GPUs of the cluster; None: those of this machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default of 15 starves a local run beside other programs
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # workers import this package from any working directory
    for attempt in range(START_ATTEMPTS):
        try:
            return _start(address="local", include_dashboard=False, num_cpus=num_cpus, num_gpus=num_gpus)
        except Exception as error:  # Ray raises a bare Exception
            if "timed out during startup" not in str(error) or attempt == START_ATTEMPTS - 1:
                raise
            ray.shutdown()


def _start(**options: Any) -> None:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's own errors; ours arrive as exceptions
    with _hidden_output(), _restored_handlers():
        ray.init(configure_logging=True, logging_level=logging.ERROR, log_to_driver=False, **options)


@contextlib.contextmanager
def _restored_handlers() -> Iterator[None]:
    """Restore the SIGTERM handler of the caller: Ray replaces it with its own, which exits with code 15."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _hidden_output() -> Iterator[None]:
    """Hide what Ray's native code prints while it starts, unless the start fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(terminal, hidden.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
