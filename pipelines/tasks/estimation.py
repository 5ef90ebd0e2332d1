"""The task of estimating a condition of every picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dataset import schema
from pipelines.errors import SampleError
from pipelines.images.codec import PACKED, file_name, open_and_keep, pack, resize_map, stored, unpack
from pipelines.samples import Sample
from pipelines.stages.task import Row
from pipelines.tasks.condition_columns import ConditionColumn, encoding_notes
from pipelines.tasks.outcomes import by_row
from unicon.options import SamplingOptions

TRANSPORT_AREA_PX = 768 * 768
"""Pictures travel to the actor no larger than this; its model works on fewer pixels anyway."""
CONFIDENCE = "confidence"


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """Pictures in; their maps, and with an ensemble how far it agrees, out."""

    condition: ConditionColumn
    sampling: SamplingOptions = SamplingOptions()
    max_pixels: int
    views: int | None = None
    """None: as the adapter recommends."""
    ensemble: int | None = None

    @property
    def seeds_by_shard(self) -> bool:
        return False

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([("pixels", PACKED)])

    @property
    def kept(self) -> pa.Schema:
        return pa.schema([("image", pa.large_binary()), ("image_name", pa.string())])

    @property
    def results(self) -> pa.Schema:
        return pa.schema([("map", PACKED), *self._confidence])

    @property
    def columns(self) -> pa.Schema:
        return pa.schema([("image", schema.MEDIA), (self.condition.name, schema.MEDIA), *self._confidence])

    @property
    def notes(self) -> Mapping[str, str]:
        return encoding_notes([self.condition])

    @property
    def _confidence(self) -> list[tuple[str, pa.DataType]]:
        return [] if self.ensemble is None else [(CONFIDENCE, pa.float32())]

    def read(self, sample: Sample) -> Row:
        image, content, (width, height) = open_and_keep(sample.image, self.max_pixels, TRANSPORT_AREA_PX)
        return {
            "image": content,
            "image_name": sample.image_name,
            "caption": sample.caption,
            "width": width,
            "height": height,
            "pixels": pack(image),
        }

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        size = row["pixels"]["width"], row["pixels"]["height"]
        return model.working_size(size, resolution_px=self.sampling.resolution_px)

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        images = [unpack(row["pixels"]) for row in rows]
        options = {"views": self.views, "ensemble": self.ensemble, "options": self.sampling}
        estimates = by_row(partial(model.estimate, images, self.condition.name, seeds=seeds, **options))
        encode = model.adapter_kind(self.condition.name).encode
        return [each if isinstance(each, SampleError) else self._result(each, encode) for each in estimates]

    def _result(self, estimate: Any, encode: Any) -> Row | SampleError:
        values = estimate if self.ensemble is None else estimate.map
        if not np.isfinite(values).all():
            return SampleError("model", "it returned values that are not finite")
        confidence = {} if self.ensemble is None else {CONFIDENCE: estimate.confidence}
        return {"map": pack(encode(values)), **confidence}

    def write(self, row: Row) -> Row:
        stem = schema.stem_of(row["key"])
        full = resize_map(unpack(row["map"]), (row["width"], row["height"]))
        confidence = {} if self.ensemble is None else {CONFIDENCE: row[CONFIDENCE]}
        return {
            "image": {"bytes": row["image"], "path": file_name(row["image_name"] or stem, row["image"])},
            self.condition.name: stored(full, f"{stem}.{self.condition.name}"),
            **confidence,
        }
