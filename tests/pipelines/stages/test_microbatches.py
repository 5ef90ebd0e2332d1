"""Micro-batches: started ahead, halved if memory is short; a row that never fits becomes an error."""

from collections.abc import Sequence

import pytest

from pipelines.errors import SampleError
from pipelines.stages.batch_sizes import BatchSizes
from pipelines.stages.microbatches import MicroBatches


class _Memory:
    """An estimator whose memory holds `rows` rows at once."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.tried: list[int] = []

    def __call__(self, batch: list[int]) -> list[int]:
        self.tried.append(len(batch))
        if len(batch) > self.rows:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [row * 10 for row in batch]


def test_micro_batches_are_halved_and_remembered() -> None:
    sizes, memory = BatchSizes(8), _Memory(3)
    results = list(MicroBatches(sizes, memory).run({(64, 64): range(10)}))
    assert results == [(row, row * 10) for row in range(10)]
    assert memory.tried == [8, 4, 2, 2, 2, 2, 2]
    assert sizes.limit(64 * 64) == sizes.limit(128 * 128) == 2
    assert sizes.limit(32 * 32) == 8


def test_a_row_that_never_fits_becomes_an_error() -> None:
    results = MicroBatches(BatchSizes(2), _Memory(0)).run({(64, 64): [0, 1]})
    assert all(isinstance(result, SampleError) for _, result in results)
    with pytest.raises(RuntimeError, match="shape"):
        list(MicroBatches(BatchSizes(2), _raise_shape_error).run({(64, 64): [0]}))


def test_batches_are_started_before_results_are_taken_and_across_sizes() -> None:
    events: list[tuple[str, list[int]]] = []

    def compute(batch: list[int]) -> Sequence[int]:
        events.append(("take", batch))
        return batch

    batches = MicroBatches(BatchSizes(2), compute, lambda batch: events.append(("start", batch)))
    results = list(batches.run({(64, 64): [0, 2, 4], (96, 64): [1, 3]}))
    assert results == [(0, 0), (2, 2), (4, 4), (1, 1), (3, 3)]
    assert events == [
        ("start", [0, 2]), ("start", [4]), ("start", [1, 3]), ("take", [0, 2]), ("take", [4]), ("take", [1, 3])
    ]  # fmt: skip


def test_batches_that_were_started_before_memory_was_short_are_halved_too() -> None:
    memory = _Memory(2)
    started: list[int] = []
    batches = MicroBatches(BatchSizes(4), memory, lambda batch: started.append(len(batch)))
    assert [row for row, _ in batches.run({(64, 64): range(18)})] == [*range(18)]
    assert started == [4, 4, 4, 2, 2, 2]
    assert memory.tried == [4, 2, 2, 4, 2, 2, 4, 2, 2, 2, 2, 2]


def _raise_shape_error(batch: list[int]) -> list[int]:
    raise RuntimeError("shape mismatch")
