"""Results of a call of the model, and the rows of it that failed."""

import pytest

from pipelines.errors import SampleError
from pipelines.tasks.outcomes import by_row
from unicon.outcomes import Failure, NonFiniteError


def test_a_row_whose_result_is_not_finite_fails_alone() -> None:
    def call() -> list[str]:
        raise NonFiniteError(["first", Failure("it overflowed"), "third"])

    first, second, third = by_row(call)
    assert (first, third) == ("first", "third")
    assert isinstance(second, SampleError) and (second.stage, second.reason) == ("model", "it overflowed")


def test_other_errors_are_raised() -> None:
    def call() -> list[str]:
        raise RuntimeError("out of memory")

    assert by_row(lambda: ("one", "two")) == ["one", "two"]
    with pytest.raises(RuntimeError, match="out of memory"):
        by_row(call)
