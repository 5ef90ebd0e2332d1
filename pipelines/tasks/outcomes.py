"""Results and failures of a call of the model, row by row.

Tested in tests/pipelines/tasks/test_outcomes.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pipelines.errors import SampleError
from unicon.outcomes import Failure, NonFiniteError


def by_row(call: Callable[[], Sequence[Any]]) -> list[Any]:
    """Return the result of each row of a call of the model, or a SampleError for a row whose result is not finite."""
    try:
        return list(call())
    except NonFiniteError as error:
        return [SampleError("model", each.reason) if isinstance(each, Failure) else each for each in error.outcomes]
