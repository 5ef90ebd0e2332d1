"""Faults of clusters of several nodes: a daemon dies, or the object store is small."""

import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.faults.work import Outcome, finish, local_work, running, wait_for_moment
from tests.support.ray_clusters import cluster

TWO_CPUS = ("--num-cpus=2",)
SMALL_STORE_BYTES = 80 << 20
"""Slightly above the minimum of Ray, 75 MB."""


def raylet_kill(folder: Path, random: Random) -> Outcome:
    """Send SIGKILL to the Ray daemon of one of two worker nodes, which loses the node and its objects."""
    with cluster(folder, [TWO_CPUS, TWO_CPUS]) as there:
        work = replace(local_work(folder), environment=there.environment)
        with running(work) as process:
            wait_for_moment(random, work, process)
            random.choice(there.nodes).raylet().kill()
            return finish(work, process)


def small_object_store(folder: Path, random: Random) -> Outcome:
    """Process chunks that exceed the object store before and after the model, so that Ray spills to disk."""
    spilled = folder / "spilled"
    spilled.mkdir()
    options = (f"--object-store-memory={SMALL_STORE_BYTES}", f"--object-spilling-directory={spilled}")
    with cluster(folder, [TWO_CPUS], *options) as there:
        work = local_work(folder, samples=6 * random.randrange(12, 17), size_px=800, chunk_size=32)
        work = replace(work, environment=there.environment, delay_s=0.02)
        with running(work) as process:
            most = _watch_spilling(spilled, process)
            return finish(work, process, {"spilled MB": round(most / 1e6, 1)})


def _watch_spilling(spilled: Path, process: "subprocess.Popen[bytes]") -> int:
    """Return the largest size of the folder, in bytes, while the command runs."""
    most = 0
    while process.poll() is None:
        with suppress(FileNotFoundError):
            most = max(most, sum(path.stat().st_size for path in spilled.rglob("*") if path.is_file()))
        time.sleep(0.1)
    return most
