"""Samples that were read, removed and kept: the numbers add up."""

from collections import Counter

from pipelines.dataset.failures import Reasons
from pipelines.dataset.funnel import LINES_SHOWN, FunnelLine, funnel, funnel_text


def test_failures_come_before_filters_and_the_numbers_add_up() -> None:
    counts = Counter({"filter: entropy below 3": 20, "decode: broken image": 4, "filter: near-duplicate": 30})
    lines = funnel(100, Reasons(counts=counts, unread=5), pending=1)
    assert lines == [
        FunnelLine(160, "read"),
        FunnelLine(4, "decode: broken image"),
        FunnelLine(30, "filter: near-duplicate"),
        FunnelLine(20, "filter: entropy below 3"),
        FunnelLine(5, "reasons that were not read"),
        FunnelLine(1, "not processed yet"),
        FunnelLine(100, "kept"),
    ]
    assert "          160  read\n" in funnel_text(lines)


def test_many_reasons_share_a_line() -> None:
    counts = Counter({f"filter: {number}": 1 for number in range(LINES_SHOWN + 7)})
    lines = funnel(1, Reasons(counts=counts))
    assert lines[-2] == FunnelLine(7, "7 other reasons") and len(lines) == LINES_SHOWN + 3
    assert lines[0].samples == sum(line.samples for line in lines[1:])
