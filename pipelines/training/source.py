"""A worker's stream of rows as the batches of its training, and what the stream tells about rows that are not used.

Tested in tests/pipelines/training/test_windows.py and tests/jobs/test_train_corpus.py.
"""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.errors import FlowError
from pipelines.training.packed import RANK, STEP, TOLD, unpacked_rows

if TYPE_CHECKING:
    from unicon.training.batches import PairBatch

Tell = Callable[[dict[str, Any]], None]


class StreamedBatches:
    """The batches of one worker, in the order of the steps. A `unicon.training.batches.BatchSource`.

    Args:
        rows: Tables of one row, see `pipelines.training.packed`.
        tell: Receives what a table tells, if anything.
    """

    def __init__(self, rows: Iterator[pa.Table], tell: Tell) -> None:
        self.rows, self.tell = rows, tell

    def batch(self, step: int, rank: int, world_size: int) -> "PairBatch":
        """Return the rows of a step. Steps are asked for once, in ascending order.

        Raises:
            FlowError: the stream has another order, or has ended.
        """
        from unicon.training.batches import collate

        table = next(self.rows, None)
        if table is None:
            raise FlowError(f"the stream of batches has ended before step {step}")
        found = table.column(STEP)[0].as_py(), table.column(RANK)[0].as_py()
        if found != (step, rank):
            raise FlowError(
                f"the stream of worker {rank} has the rows of (step, worker) {found} instead of step {step}"
            )
        if told := json.loads(table.column(TOLD)[0].as_py()):
            self.tell(told)
        return collate(unpacked_rows(table))
