"""Rows that failed beside rows that succeeded. Imports no torch.

Tested in tests/unicon/test_finite.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
ROWS_NAMED = 10


@dataclass(frozen=True)
class Failure:
    """A row without a result."""

    reason: str
    """What is wrong, and the likely cure."""


class NonFiniteError(ValueError):
    """Raised where the results of rows are not finite numbers. The results of the other rows are in `outcomes`."""

    def __init__(self, outcomes: Sequence[Any]) -> None:
        failed = {row: each for row, each in enumerate(outcomes) if isinstance(each, Failure)}
        named = ", ".join(map(str, list(failed)[:ROWS_NAMED])) + (", ..." if len(failed) > ROWS_NAMED else "")
        reasons = dict.fromkeys(failure.reason for failure in failed.values())
        super().__init__(
            f"Every result is made of finite numbers; {len(failed)} of {len(outcomes)} rows are not (rows {named}): "
            f"{' '.join(reasons)} The results of the other rows are in this error's `outcomes`."
        )
        self.outcomes = list(outcomes)
        """One entry per row: its result, or a `Failure`."""


def settled(outcomes: Sequence[T | Failure]) -> list[T]:
    """Return the results of all rows. Raises NonFiniteError where a row failed."""
    results = [each for each in outcomes if not isinstance(each, Failure)]
    if len(results) < len(outcomes):
        raise NonFiniteError(outcomes)
    return results


def grouped(outcomes: Sequence[T | Failure], size: int) -> list[list[T] | Failure]:
    """Outcomes in groups of a size. A group with a failure is that failure."""
    groups: list[list[T] | Failure] = []
    for start in range(0, len(outcomes), size):
        group = outcomes[start : start + size]
        failed = [each for each in group if isinstance(each, Failure)]
        groups.append(failed[0] if failed else [each for each in group if not isinstance(each, Failure)])
    return groups


def combined(parts: Sequence[Mapping[str, T] | Failure], names: Iterable[str]) -> dict[str, T] | Failure:
    """The parts of one outcome as one dict in the order of the names, or the first failure among them."""
    failed = [part for part in parts if isinstance(part, Failure)]
    if failed:
        return failed[0]
    found = {name: value for part in parts if not isinstance(part, Failure) for name, value in part.items()}
    return {name: found[name] for name in names}
