"""Rows that failed among rows that came through. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
ROWS_NAMED = 10


@dataclass(frozen=True)
class Failure:
    """A row without a result."""

    reason: str
    """What is wrong, and what would help."""


class NonFiniteError(ValueError):
    """Rows whose results are not finite numbers; the results of the others are in `outcomes`."""

    def __init__(self, outcomes: Sequence[Any]) -> None:
        failed = {row: each for row, each in enumerate(outcomes) if isinstance(each, Failure)}
        named = ", ".join(map(str, list(failed)[:ROWS_NAMED])) + (", ..." if len(failed) > ROWS_NAMED else "")
        reasons = dict.fromkeys(failure.reason for failure in failed.values())
        super().__init__(
            f"Every result is made of finite numbers; {len(failed)} of {len(outcomes)} rows are not (rows {named}): "
            f"{' '.join(reasons)} The results of the other rows are in this error's `outcomes`."
        )
        self.outcomes = list(outcomes)
        """One entry a row: its result, or a `Failure`."""


def settled(outcomes: Sequence[T | Failure]) -> list[T]:
    """The results of all rows. Raises NonFiniteError where a row failed."""
    results = [each for each in outcomes if not isinstance(each, Failure)]
    if len(results) < len(outcomes):
        raise NonFiniteError(outcomes)
    return results
