"""Clusters of several nodes on this machine, by `ray start`; one of their daemons dies, or their memory is small."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import psutil

from tests.faults.kills import title
from tests.faults.work import ROOT, Outcome, descendants, finish, local_work, running, wait_for_moment
from tests.object_store import free_ports

RAY = str(Path(sys.executable).parent / "ray")
START_LIMIT_S = 120.0
START_ATTEMPTS = 3
SMALL_STORE_BYTES = 80 << 20
"""Ray's least is 75 MB."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a cluster, held by its `ray start --block`."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def raylet(self) -> psutil.Process:
        """Its daemon."""
        return next(child for child in descendants(self.process.pid) if "raylet/raylet" in title(child))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A head without CPUs, where the command lives, and nodes that work."""

    environment: Mapping[str, str]
    """What a command needs to use it."""
    nodes: tuple[Node, ...]


@contextmanager
def cluster(folder: Path, nodes: int, *options: str) -> Iterator[Cluster]:
    """Start a cluster of nodes of 2 CPUs, each with these options of `ray start`; it is ended on leaving."""
    port, client_port = free_ports(2)
    address = f"127.0.0.1:{port}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}", "--include-dashboard=false"]
    started: list[Node] = []
    try:
        started.append(_start(folder, token, [*head, "--num-cpus=0", *options]))
        joining = [f"--address={address}", "--num-cpus=2", *options]
        for _ in range(nodes):
            started.append(_start(folder, token, joining))
        yield Cluster(environment={**token, "RAY_ADDRESS": address}, nodes=tuple(started[1:]))
    finally:
        for node in reversed(started):
            _end(node)


def raylet_kill(folder: Path, random: Random) -> Outcome:
    """SIGKILL to Ray's daemon on one of the two nodes that work; the node and what it holds are lost."""
    with cluster(folder, 2) as there:
        work = replace(local_work(folder), environment=there.environment)
        with running(work) as process:
            wait_for_moment(random, work, process)
            random.choice(there.nodes).raylet().kill()
            return finish(work, process)


def small_object_store(folder: Path, random: Random) -> Outcome:
    """A chunk before and after the model is more than the object store: Ray has to spill to disk."""
    spilled = folder / "spilled"
    spilled.mkdir()
    options = (f"--object-store-memory={SMALL_STORE_BYTES}", f"--object-spilling-directory={spilled}")
    with cluster(folder, 1, *options) as there:
        work = local_work(folder, samples=6 * random.randrange(16, 25), size_px=800, chunk_size=32)
        work = replace(work, environment=there.environment, delay_s=0.02)
        with running(work) as process:
            most = _watch_spilling(spilled, process)
            return finish(work, process, {"spilled MB": round(most / 1e6, 1)})


def _watch_spilling(spilled: Path, process: "subprocess.Popen[bytes]") -> int:
    """The most bytes seen in the folder while the command ran."""
    most = 0
    while process.poll() is None:
        with suppress(FileNotFoundError):
            most = max(most, sum(path.stat().st_size for path in spilled.rglob("*") if path.is_file()))
        time.sleep(0.1)
    return most


def _start(folder: Path, token: Mapping[str, str], options: list[str]) -> Node:
    """A node that runs. Ray gives one 30 s to come up, which a busy machine exceeds: it is tried again then."""
    for _ in range(START_ATTEMPTS):
        node = _launch(folder, token, options)
        if _is_up(node):
            return node
        _end(node)
    raise RuntimeError(f"a node of the test's cluster did not start:\n{node.log.read_text()[-3000:]}")


def _launch(folder: Path, token: Mapping[str, str], options: list[str]) -> Node:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = {**inherited, **quiet, **token, "PYTHONPATH": paths}
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    command = [RAY, "start", "--block", "--node-ip-address=127.0.0.1", *ports, *options]
    log = folder / f"ray-{time.time_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    return Node(process=process, log=log)


def _is_up(node: Node) -> bool:
    """Waits until it is, or has given up."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and node.process.poll() is None:
        if "Ray runtime started" in node.log.read_text(errors="replace"):
            return True
        time.sleep(0.1)
    return False


def _end(node: Node) -> None:
    below = descendants(node.process.pid)
    node.process.terminate()
    with suppress(subprocess.TimeoutExpired):
        node.process.wait(20)
    node.process.kill()
    node.process.wait()
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
