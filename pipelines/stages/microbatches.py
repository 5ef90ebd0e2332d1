"""Micro-batches: rows that the model processes at once; halved if they do not fit into memory."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.errors import SampleError
from pipelines.stages.batch_sizes import BatchSizes

BATCHES_AHEAD = 2
"""Micro-batches that are started before the results of one are taken: it is finished, the next one is on the device,
and the one after that is prepared."""

Size = tuple[int, int]
"""(width, height) in pixels."""


class MicroBatches:
    """Cuts the rows of a chunk into batches; halves a batch that does not fit into memory."""

    def __init__(
        self,
        sizes: BatchSizes,
        compute: Callable[[list[int]], Sequence[Any]],
        start: Callable[[list[int]], None] | None = None,
    ) -> None:
        """Cut the rows for these functions.

        Args:
            sizes: The batch sizes, which outlive the chunk.
            compute: Returns the results of a batch.
            start: Starts a batch whose results `compute` will be asked for; None: they are computed one by one.
        """
        self.sizes = sizes
        self.compute = compute
        self.start = start

    def run(self, groups: Mapping[Size, Sequence[int]]) -> Iterator[tuple[int, Any]]:
        """Yield (row, result) of all rows; the result of a row that does not even fit alone is a SampleError.

        Args:
            groups: Working size -> rows.
        """
        started: deque[tuple[Size, list[int]]] = deque()
        for size, batch in self._cut(groups):
            if self.start is not None:
                self.start(batch)
            started.append((size, batch))
            if self.start is None or len(started) > BATCHES_AHEAD:
                yield from self._results(*started.popleft())
        for size, batch in started:
            yield from self._results(size, batch)

    def _cut(self, groups: Mapping[Size, Sequence[int]]) -> Iterator[tuple[Size, list[int]]]:
        for size, rows in groups.items():
            at = 0
            while at < len(rows):
                batch = list(rows[at : at + self.sizes.limit(size[0] * size[1])])
                yield size, batch
                at += len(batch)

    def _results(self, size: Size, batch: list[int]) -> Iterator[tuple[int, Any]]:
        area_px = size[0] * size[1]
        at = 0
        part = batch
        while at < len(batch):
            try:
                results = self.compute(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    results = [SampleError("model", f"out of memory for one image at {size[0]} x {size[1]}: {error}")]
                else:
                    self.sizes.did_not_fit(area_px, len(part))
                    results = []
            yield from zip(part[: len(results)], results, strict=True)
            at += len(results)
            part = batch[at : at + self.sizes.limit(area_px)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is torch's accelerator error, the RuntimeError of its CPU allocator, or Python's own."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in text
        or "out of memory" in text.lower()
    )
