"""Micro-batches: rows that the model takes at once; halved where memory is short."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.errors import SampleError


class MicroBatches:
    """Cuts rows into batches; halves a batch that does not fit into memory and remembers what fits, by area."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.fits: dict[int, int] = {}
        """Area in pixels -> rows, where less than `batch_size` was found to fit."""
        self.start_counting()

    def start_counting(self) -> None:
        """Begin a block: its largest batch, and the seconds of computing, those of batches that did not fit too."""
        self.largest = 0
        self.compute_s = 0.0

    def limit(self, area_px: int) -> int:
        """Rows to try at once: what fitted at this area or a smaller one."""
        return min([self.batch_size, *(rows for area, rows in self.fits.items() if area <= area_px)])

    def run(
        self, rows: Sequence[int], size_px: tuple[int, int], compute: Callable[[list[int]], Sequence[Any]]
    ) -> list[tuple[int, Any]]:
        """(row, result) of all rows; a row that does not fit alone has a SampleError for a result."""
        area_px = size_px[0] * size_px[1]
        results: list[tuple[int, Any]] = []
        at = 0
        while at < len(rows):
            batch = list(rows[at : at + self.limit(area_px)])
            started = time.monotonic()
            try:
                results += zip(batch, compute(batch), strict=True)
                self.largest = max(self.largest, len(batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) > 1:
                    self.fits[area_px] = len(batch) // 2
                    continue
                reason = f"out of memory for one picture at {size_px[0]} x {size_px[1]}: {error}"
                results.append((batch[0], SampleError("model", reason)))
            finally:
                self.compute_s += time.monotonic() - started
            at += len(batch)
        return results


def is_out_of_memory(error: BaseException) -> bool:
    """torch's accelerator error, its CPU allocator's RuntimeError, or Python's own."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in text
        or "out of memory" in text.lower()
    )
