"""Clusters of several nodes on this machine, by `ray start`."""

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
    """A node of a cluster, held by its `ray start --block`."""

    process: "subprocess.Popen[bytes]"
    log: Path
    temporary: Path
    """Of its own: nodes of one machine would delete the working directory of a job that another one runs."""

    def raylet(self) -> psutil.Process:
        """Its daemon."""
        return next(child for child in descendants(self.process.pid) if "raylet/raylet" in title(child))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A head without CPUs, where the command lives, and nodes that work."""

    environment: Mapping[str, str]
    """What a command needs to use it."""
    nodes: tuple[Node, ...]
    dashboard: str
    """Where jobs are submitted; nobody listens there where the cluster was not asked to take jobs."""

    def process_environment(self) -> dict[str, str]:
        """Of this process, with what is needed to use the cluster."""
        return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **self.environment}


@contextmanager
def cluster(folder: Path, nodes: Sequence[Sequence[str]], *options: str, takes_jobs: bool = False) -> Iterator[Cluster]:
    """Start a cluster of a head and nodes; it is ended on leaving.

    nodes: of each one, what it has, as options of `ray start`. options: more of them, for the head too.
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
    """A node that runs. Ray gives one 30 s to come up, which a busy machine exceeds: it is tried again then."""
    for _ in range(START_ATTEMPTS):
        node = _launch(folder, token, options)
        if _is_up(node):
            return node
        _end(node)
    raise RuntimeError(f"a node of the test's cluster did not start:\n{node.log.read_text()[-3000:]}")


def _launch(folder: Path, token: Mapping[str, str], options: list[str]) -> Node:
    paths = os.pathsep.join([str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PATH": programs}
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = {**inherited, **quiet, **token, "PYTHONPATH": paths}
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: the names of sockets begin with it
    command = [RAY, "start", "--block", "--node-ip-address=127.0.0.1", f"--temp-dir={temporary}", *ports, *options]
    log = folder / f"ray-{time.time_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    return Node(process=process, log=log, temporary=temporary)


def _is_up(node: Node) -> bool:
    """Waits until it is, or has given up."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and node.process.poll() is None:
        if "Ray runtime started" in node.log.read_text(errors="replace"):
            return True
        time.sleep(0.1)
    return False


def _end(node: Node) -> None:
    """At once: asked to, `ray start` takes up to 20 s after a job."""
    below = descendants(node.process.pid)
    node.process.kill()
    node.process.wait()
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(node.temporary, ignore_errors=True)
