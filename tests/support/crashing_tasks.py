"""Small runs in which samples kill their workers.

`python -m tests.support.crashing_tasks FOLDER` runs on two nodes and kills one of them.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.dataset import layout
from pipelines.planning.plan import make_plan
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns, Sample
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.stages.task import Row
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.estimation import Estimation
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import samples, write_tar
from tests.support.paths import PROJECT_ROOT

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class CrashingEstimation(Estimation):
    """An estimation that kills its own process while decoding some keys and while encoding others."""

    kills_reading: tuple[str, ...] = ()
    kills_writing: tuple[str, ...] = ()

    def read(self, sample: Sample) -> Row:
        if sample.key in self.kills_reading:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().read(sample)

    def write(self, row: Row) -> Row:
        if row["key"] in self.kills_writing:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(row)


def crashing_task(kills_reading: tuple[str, ...] = (), kills_writing: tuple[str, ...] = ()) -> CrashingEstimation:
    """Create a depth estimation that crashes while it reads or writes the given keys."""
    depth = ConditionColumn(name="depth", kind="depth")
    return CrashingEstimation(
        conditions=(depth,), max_pixels=10**6, kills_reading=kills_reading, kills_writing=kills_writing
    )


def receipts(
    root: Path, chunk_size: int, task: Estimation, model: FakeDepth, **resources: Any
) -> Iterator[dict[str, Any]]:
    """Yield the receipts of a run on `root/in` into `root/out`."""
    from pipelines.engine.blocks import Flow, ModelStage
    from pipelines.engine.flow import run_flow
    from pipelines.engine.resources import Resources

    output = str(root / "out")
    source = ImageShards(columns=Columns())
    measured = measure(find_shards([str(root / "in")]), Columns(), output)
    chunks = make_plan(measured, layout.list_output(output), "c" * 16, chunk_size).chunks
    flow = Flow(
        read=ReadRows(task=task, source=source),
        models=(ModelStage(model=ComputeRows(task=task, model=model, run_seed=0, batch_size=4)),),
        publish=PublishRows(output=output, task=task, provenance={"model": "fake", "seed": 0}),
    )
    return run_flow(chunks, flow, Resources(**{"cpus_per_actor": 0.5, "cpus_per_task": 0.25, **resources}))


def children(process: int) -> list[str]:
    """Return the titles of the child processes."""
    ids = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [Path(f"/proc/{child}/cmdline").read_text().strip("\0") for child in ids]


def lose_a_node(root: Path) -> dict[str, Any]:
    """Run on two nodes, kill one while its actor works, and return what became of the chunks."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(PROJECT_ROOT)
    write_tar(root / "in" / "a.tar", samples(48))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    done: list[dict[str, Any]] = []
    killed: list[str] = []
    machines = {len([node for node in ray.nodes() if node["Alive"]])}
    for receipt in receipts(root, 4, crashing_task(), FakeDepth(delay_s=0.5), actors=2):
        done.append(receipt)
        raylet = second.all_processes["raylet"][0].process.pid
        if len(done) >= 2 and not killed:
            killed = [name for name in children(raylet) if "MapWorker" in name]
            if killed:
                os.kill(raylet, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(machines) < 2 and time.monotonic() < deadline:
        machines.add(len([node for node in ray.nodes() if node["Alive"]]))
        time.sleep(0.5)
    return {
        "chunks": [receipt["chunk"] for receipt in done],
        "bad": sum(r["bad"] for r in done),
        "machines": [*machines],
        "killed": killed,
    }


if __name__ == "__main__":
    print(json.dumps(lose_a_node(Path(sys.argv[1]))))
