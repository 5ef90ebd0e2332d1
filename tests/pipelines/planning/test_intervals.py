"""Intervals of positions: what is left of them, and how they are cut."""

from pipelines.planning.intervals import cells, gaps


def test_gaps() -> None:
    assert list(gaps(0, 10, [])) == [(0, 10)]
    assert list(gaps(0, 10, [(2, 4), (0, 1), (8, 20)])) == [(1, 2), (4, 8)]
    assert list(gaps(0, 10, [(0, 10)])) == []
    assert list(gaps(0, 10, [(12, 14)])) == [(0, 10)]


def test_cells_begin_and_end_at_multiples() -> None:
    assert list(cells(0, 25, 10)) == [(0, 10), (10, 20), (20, 25)]
    assert list(cells(12, 21, 10)) == [(12, 20), (20, 21)]
    assert list(cells(3, 3, 10)) == []
