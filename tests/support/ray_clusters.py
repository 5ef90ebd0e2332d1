"""Clusters of several nodes on this machine, started by `ray start`."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.object_store import free_ports
from tests.support.paths import PROJECT_ROOT
from tests.support.processes import descendants, title

RAY = str(Path(sys.executable).parent / "ray")
START_LIMIT_S = 120.0
START_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a cluster, kept alive by its `ray start --block`."""

    process: "subprocess.Popen[bytes]"
    log: Path
    temporary: Path
    """Temporary folder of this node alone: nodes that share one delete the working directories of each other's jobs."""

    def raylet(self) -> psutil.Process:
        """Return the daemon of the node."""
        return next(child for child in descendants(self.process.pid) if "raylet/raylet" in title(child))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A head node without CPUs, where the command runs, and worker nodes."""

    environment: Mapping[str, str]
    """Environment variables that a command needs to use the cluster."""
    nodes: tuple[Node, ...]
    dashboard: str
    """Address for job submissions; it is served only if the cluster was started with `takes_jobs`."""

    def process_environment(self) -> dict[str, str]:
        """Return the environment of this process plus the variables that are needed to use the cluster."""
        return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **self.environment}


@contextmanager
def cluster(folder: Path, nodes: Sequence[Sequence[str]], *options: str, takes_jobs: bool = False) -> Iterator[Cluster]:
    """Run a cluster of a head and worker nodes until the context is left.

    Args:
        folder: Folder for the logs.
        nodes: Options of `ray start` for each worker node.
        options: More options of `ray start`, for all nodes.
        takes_jobs: Whether the dashboard accepts job submissions.
    """
    port, client_port, dashboard_port = free_ports(3)
    address = f"127.0.0.1:{port}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    dashboard = f"--include-dashboard={str(takes_jobs).lower()}", f"--dashboard-port={dashboard_port}"
    head = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}", *dashboard, "--num-cpus=0"]
    started: list[Node] = []
    try:
        started.append(_start(folder, token, [*head, *options]))
        for node in nodes:
            started.append(_start(folder, token, [f"--address={address}", *node, *options]))
        yield Cluster(
            environment={**token, "RAY_ADDRESS": address},
            nodes=tuple(started[1:]),
            dashboard=f"http://127.0.0.1:{dashboard_port}",
        )
    finally:
        for node in reversed(started):
            _end(node)


def _start(folder: Path, token: Mapping[str, str], options: list[str]) -> Node:
    """Start a node, with retries: Ray allows 30 s for the start, which a busy machine exceeds."""
    log = ""
    for _ in range(START_ATTEMPTS):
        node = _launch(folder, token, options)
        if _is_up(node):
            return node
        _end(node)
        log = node.log.read_text()
    raise RuntimeError(f"a node of the test cluster did not start:\n{log[-3000:]}")


def _launch(folder: Path, token: Mapping[str, str], options: list[str]) -> Node:
    paths = os.pathsep.join([str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PATH": programs}
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = {**inherited, **quiet, **token, "PYTHONPATH": paths}
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short, as socket names begin with it
    command = [RAY, "start", "--block", "--node-ip-address=127.0.0.1", f"--temp-dir={temporary}", *ports, *options]
    log = folder / f"ray-{time.time_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    return Node(process=process, log=log, temporary=temporary)


def _is_up(node: Node) -> bool:
    """Wait until the node runs or has given up."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and node.process.poll() is None:
        if "Ray runtime started" in node.log.read_text(errors="replace"):
            return True
        time.sleep(0.1)
    return False


def _end(node: Node) -> None:
    """Kill the node: `ray start` takes up to 20 s to stop on request after a job."""
    below = descendants(node.process.pid)
    node.process.kill()
    node.process.wait()
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(node.temporary, ignore_errors=True)
