"""The task of generating an image together with its conditions from a prompt.

Tested in tests/pipelines/tasks/test_generation.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.dataset import schema
from pipelines.errors import SampleError
from pipelines.samples import Sample
from pipelines.stages.task import TOKENS_CUT, Row
from pipelines.tasks.generation import GENERATED, Generation


@dataclass(frozen=True, kw_only=True)
class PairGeneration(Generation):
    """Generates images and condition maps from prompts."""

    size_px: tuple[int, int] | None = None
    """(width, height) of the results; None: the native square of the model."""

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([])

    @property
    def passthrough(self) -> pa.Schema:
        return pa.schema([])

    @property
    def columns(self) -> pa.Schema:
        media = [(name, schema.MEDIA) for name in ("image", *self.returned)]
        return pa.schema([*media, (TOKENS_CUT, pa.int32())])

    def read(self, sample: Sample) -> Row:
        return {"caption": self.caption(sample), "width": None, "height": None}

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        return model.working_size(self.size_px or (1, 1), resolution_px=self.resolution_px)

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        prompts = [row["caption"] for row in rows]
        options = {"size": self.size_px, **self.options(rows, seeds)}
        return self.packed_results(model, lambda: model.generate_pairs(prompts, self.returned, **options))

    def write(self, row: Row) -> Row:
        size = row[GENERATED]["width"], row[GENERATED]["height"]
        return {**self.written(row, size), "width": size[0], "height": size[1]}
