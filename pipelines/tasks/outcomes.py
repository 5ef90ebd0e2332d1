"""Results of a call of the model that has them row by row."""

from collections.abc import Callable, Sequence
from typing import Any

from pipelines.errors import SampleError
from unicon.outcomes import Failure, NonFiniteError


def by_row(call: Callable[[], Sequence[Any]]) -> list[Any]:
    """What a call of the model returns, one entry a row; a SampleError for a row whose result is not finite."""
    try:
        return list(call())
    except NonFiniteError as error:
        return [SampleError("model", each.reason) if isinstance(each, Failure) else each for each in error.outcomes]
