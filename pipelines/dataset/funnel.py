"""How many samples of the input became rows, and what became of the others: numbers that add up.

Tested in tests/pipelines/dataset/test_funnel.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.dataset.failures import Reasons
from pipelines.errors import FILTER

LINES_SHOWN = 20
"""Reasons that are listed; the others share one line."""


class FunnelLine(NamedTuple):
    """A number of samples, and what they are."""

    samples: int
    what: str


def funnel(rows: int, reasons: Reasons, pending: int = 0) -> list[FunnelLine]:
    """Return the lines from the samples of the input to the rows in data/: the first equals the sum of the others.

    Samples that failed come first, then those that filters have removed, each by its kind of reason, the most common
    one first.

    Args:
        rows: Rows in data/.
        reasons: Why the other finished samples have no row.
        pending: Samples that are not processed yet.
    """
    counted = sorted(reasons.counts.items(), key=lambda item: (item[0].startswith(f"{FILTER}:"), -item[1], item[0]))
    lines = [FunnelLine(count, reason) for reason, count in counted[:LINES_SHOWN]]
    if rest := counted[LINES_SHOWN:]:
        lines.append(FunnelLine(sum(count for _, count in rest), f"{len(rest):,} other reasons"))
    if reasons.unread:
        lines.append(FunnelLine(reasons.unread, "reasons that were not read"))
    if pending:
        lines.append(FunnelLine(pending, "not processed yet"))
    lines.append(FunnelLine(rows, "kept"))
    return [FunnelLine(sum(line.samples for line in lines), "read"), *lines]


def funnel_text(lines: Sequence[FunnelLine]) -> str:
    """Format a funnel, one line for each number."""
    return "\n".join(f"    {line.samples:>9,}  {line.what[:160]}" for line in lines)
