"""Half-open intervals of positions."""

from collections.abc import Iterable, Iterator


def gaps(start: int, stop: int, taken: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of [start, stop) that no taken interval covers, in ascending order."""
    for first, last in sorted(taken):
        if first > start:
            yield start, min(first, stop)
        start = max(start, last)
        if start >= stop:
            return
    if start < stop:
        yield start, stop


def cells(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield [start, stop), cut at the multiples of `size`."""
    while start < stop:
        end = min((start // size + 1) * size, stop)
        yield start, end
        start = end
