"""Micro-batches: halved if memory is short; a row that never fits becomes an error."""

import pytest

from pipelines.errors import SampleError
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
    batches, memory = MicroBatches(8), _Memory(3)
    assert batches.run(range(10), (64, 64), memory) == [(row, row * 10) for row in range(10)]
    assert memory.tried == [8, 4, 2, 2, 2, 2, 2]
    assert batches.limit(64 * 64) == batches.limit(128 * 128) == 2
    assert batches.limit(32 * 32) == 8


def test_a_row_that_never_fits_becomes_an_error() -> None:
    results = MicroBatches(2).run([0, 1], (64, 64), _Memory(0))
    assert all(isinstance(result, SampleError) for _, result in results)
    with pytest.raises(RuntimeError, match="shape"):
        MicroBatches(2).run([0], (64, 64), _raise_shape_error)


def _raise_shape_error(batch: list[int]) -> list[int]:
    raise RuntimeError("shape mismatch")
