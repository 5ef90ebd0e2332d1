"""Micro-batches: rows that the model processes at once; halved if they do not fit into memory."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.errors import SampleError


class MicroBatches:
    """Cuts rows into batches; halves a batch that does not fit into memory and remembers what fits, by area."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.fits: dict[int, int] = {}
        """Area in pixels -> rows, where fewer than `batch_size` fit."""
        self.start_counting()

    def start_counting(self) -> None:
        """Start a block: reset its largest batch and its computing time, which includes batches that do not fit."""
        self.largest = 0
        self.compute_s = 0.0

    def limit(self, area_px: int) -> int:
        """The number of rows to try at once: what fit at this area or a smaller one."""
        return min([self.batch_size, *(rows for area, rows in self.fits.items() if area <= area_px)])

    def run(
        self, rows: Sequence[int], size_px: tuple[int, int], compute: Callable[[list[int]], Sequence[Any]]
    ) -> list[tuple[int, Any]]:
        """Return (row, result) of all rows; the result of a row that does not even fit alone is a SampleError."""
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
                reason = f"out of memory for one image at {size_px[0]} x {size_px[1]}: {error}"
                results.append((batch[0], SampleError("model", reason)))
            finally:
                self.compute_s += time.monotonic() - started
            at += len(batch)
        return results


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is torch's accelerator error, the RuntimeError of its CPU allocator, or Python's own."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in text
        or "out of memory" in text.lower()
    )
