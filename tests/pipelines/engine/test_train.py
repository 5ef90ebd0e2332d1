"""The streams of a training: every worker gets its rows in order; CPUs of workers and tasks on small clusters.

Workers, their restarts and process groups are tested in tests/jobs/test_train_corpus.py.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pytest

from pipelines.engine.train import Scaling

STEPS_A_TASK, TASKS = 5, 8


@dataclass(frozen=True)
class Counting:
    """Steps and their reader: rows are numbers, and odd tasks take longer."""

    @property
    def reader(self) -> "Counting":
        return self

    def tasks(self) -> list[int]:
        return list(range(TASKS))

    def read(self, task: int, world_size: int) -> Iterator[pa.Table]:
        time.sleep(0.2 * (task % 2))
        for step in range(task * STEPS_A_TASK, (task + 1) * STEPS_A_TASK):
            for rank in range(world_size):
                yield pa.table({"step": [step], "rank": [rank]})

    def decode(self, table: pa.Table) -> pa.Table:
        time.sleep(0.02 * (table.column("step")[0].as_py() % 3))
        return table.append_column("decoded", [[True]])


@pytest.mark.slow
def test_every_worker_gets_its_rows_in_order(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.data import DataContext

    from pipelines.engine.step_stream import StreamCpus, rows_of, step_dataset

    context = DataContext.get_current()
    for name in ("target_max_block_size", "enable_progress_bars", "print_on_execution_start", "execution_options"):
        monkeypatch.setattr(context, name, getattr(context, name))
    workers = 3
    dataset = step_dataset(Counting(), workers, StreamCpus(workers=1.0, a_task=0.25))
    found: dict[int, list[tuple[int, int]]] = {rank: [] for rank in range(workers)}

    def consume(rank: int, split) -> None:
        for table in rows_of(split):
            assert table.num_rows == 1 and table.column("decoded")[0].as_py()
            found[rank].append((table.column("step")[0].as_py(), table.column("rank")[0].as_py()))

    splits = dataset.streaming_split(workers, equal=False)
    threads = [threading.Thread(target=consume, args=each) for each in enumerate(splits)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert found == {rank: [(step, rank) for step in range(STEPS_A_TASK * TASKS)] for rank in range(workers)}


def test_workers_and_tasks_fit_on_one_cpu() -> None:
    for cpus, most in ((1, 1), (2, 1), (2, 2), (16, 4), (64, 8)):
        scaling = Scaling(most=most)
        stream = scaling.stream_cpus(cpus)
        assert 0 < scaling.cpus_per_worker(cpus) <= 1
        assert stream.workers + 2 * stream.a_task <= cpus and stream.a_task > 0
