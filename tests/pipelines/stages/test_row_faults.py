"""Exceptions of a model: one that a row causes becomes its error, a systematic one is raised, a broken process ends."""

from collections.abc import Callable

import pytest

from pipelines.engine.attempts import BrokenProcessError
from pipelines.errors import SampleError
from pipelines.stages.row_faults import RowFaults


class _Model:
    """Multiplies rows by ten; fails on request."""

    def __init__(self, fails: Callable[[int, int], bool], error: Exception | None = None) -> None:
        self.fails = fails
        """(row, calls so far)."""
        self.error = error or RuntimeError("sizes must match\nand more")
        self.tried: list[list[int]] = []

    def __call__(self, batch: list[int]) -> list[int]:
        self.tried.append(batch)
        if any(self.fails(row, len(self.tried)) for row in batch):
            raise self.error
        return [row * 10 for row in batch]

    def faults(self) -> RowFaults:
        return RowFaults(self, lambda row: lambda: self([row]))


def test_a_row_that_raises_is_found_by_halving() -> None:
    model = _Model(lambda row, calls: row == 5)
    faults = model.faults()
    results = list(faults(list(range(8))))
    faults.finish()
    assert isinstance(results[5], SampleError)
    assert (results[5].stage, results[5].reason) == ("model", "RuntimeError: sizes must match")
    assert [*results[:5], *results[6:]] == [0, 10, 20, 30, 40, 60, 70]
    assert len(model.tried) == 7


def test_a_row_at_the_end_is_blamed_only_if_an_earlier_one_still_works() -> None:
    model = _Model(lambda row, calls: row == 7)
    faults = model.faults()
    faults([6, 7])
    faults.finish()
    assert model.tried[-1] == [6]

    broken = _Model(lambda row, calls: calls > 3).faults()
    for row in (1, 2, 3, 4, 5):
        broken([row])
    with pytest.raises(BrokenProcessError, match="RuntimeError: sizes must match, for a sample that succeeded before"):
        broken.finish()


def test_an_error_of_every_row_is_raised() -> None:
    faults = _Model(lambda row, calls: True).faults()
    assert all(isinstance(result, SampleError) for result in faults([1, 2, 3]))
    with pytest.raises(RuntimeError, match="sizes must match"):
        faults.finish()
    faults.finish(failed_before=True)


def test_a_row_of_an_earlier_chunk_is_evidence_too() -> None:
    model = _Model(lambda row, calls: row == 9)
    first = model.faults()
    first([1])
    later = RowFaults(model, lambda row: lambda: model([row]), first.probe)
    later([9])
    later.finish()
    assert model.tried == [[1], [9], [1]]


@pytest.mark.parametrize("text", ["CUDA error: device-side assert triggered", "cuDNN error: CUDNN_STATUS_BAD"])
def test_a_device_that_failed_ends_the_process(text: str) -> None:
    with pytest.raises(BrokenProcessError, match=text):
        _Model(lambda row, calls: row == 1, RuntimeError(text)).faults()([0, 1, 2])


def test_out_of_memory_is_left_to_the_caller() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        _Model(lambda row, calls: True, RuntimeError("CUDA error: out of memory")).faults()([0, 1])
