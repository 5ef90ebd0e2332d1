"""The first stage: reads a chunk into rows. Tested in tests/pipelines/stages/test_publish.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.engine import blocks
from pipelines.engine.attempts import Attempt
from pipelines.errors import FILTER, PassingError, SampleError, printable
from pipelines.readers.sources import Source
from pipelines.samples import Chunk, Sample
from pipelines.stages.row_faults import blaming_sample
from pipelines.stages.task import COMMON, UNSUPERVISED, RowTask
from pipelines.storage.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """First stage: reads the samples of a chunk, as rows small enough to travel."""

    task: RowTask
    source: Source
    published: Callable[[Chunk], bool] | None = None
    """Returns whether another run has published a chunk since it was planned; it is then passed on without samples."""
    gives_up: bool = False
    """Whether samples that cannot be fetched for now count as failed, even all samples of a chunk (`--give-up`)."""

    def __call__(self, chunk: Chunk, attempt: Attempt = UNSUPERVISED) -> pa.Table:
        """Return the block of the chunk."""
        columns = pa.schema([*COMMON, *self.task.passthrough, *self.task.inputs])
        if self.published is not None and not chunk.only and self.published(chunk):
            return blocks.published_elsewhere(chunk, columns)
        rows: list[dict[str, Any]] = []
        waiting: list[PassingError] = []
        filtered = dict(chunk.filtered)
        for sample in self.source.read(chunk):
            rows.append(self._row(sample, attempt, filtered.get(sample.position)))
            if isinstance(sample.problem, PassingError):
                waiting.append(sample.problem)
        is_whole = len(waiting) == len(rows) and not chunk.only
        if is_whole and not self.gives_up and any(problem.is_shared for problem in waiting):
            raise StorageError(
                f"no sample of this chunk can be fetched: {waiting[0].reason}; with --give-up such samples count as "
                "failed",
                "unreachable",
            )
        return blocks.new_block(chunk, rows, columns)

    def _row(self, sample: Sample, attempt: Attempt, filtered: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {"position": sample.position, "key": printable(sample.key)}
        try:
            if sample.problem is not None:
                raise sample.problem
            if filtered is not None:
                raise SampleError(FILTER, filtered)
            with attempt.on(sample.position):
                with blaming_sample("read"):
                    read = self.task.read(sample)
                return {**row, "caption_note": sample.caption_note or None, **read}
        except SampleError as error:
            return {**row, "error_stage": error.stage, "error_reason": error.reason}
