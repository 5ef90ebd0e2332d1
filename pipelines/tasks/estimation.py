"""The task of estimating a condition of every image."""

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
"""Images are scaled down to this area before they are sent to the actor, whose model works on fewer pixels."""
CONFIDENCE = "confidence"
"""Column with the confidence of an ensemble."""


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """Estimates the map of a condition for each image, and the confidence of an ensemble."""

    condition: ConditionColumn
    sampling: SamplingOptions = SamplingOptions()
    max_pixels: int
    num_views: int | None = None
    """Number of views of each image that are averaged; None: the recommendation of the adapter."""
    ensemble_size: int | None = None
    """Number of estimates for each image, or None for a single estimate without a confidence."""

    @property
    def seeds_by_shard(self) -> bool:
        return False

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([("pixels", PACKED)])

    @property
    def passthrough(self) -> pa.Schema:
        return pa.schema([("image", pa.large_binary()), ("image_name", pa.string())])

    @property
    def results(self) -> pa.Schema:
        return pa.schema([("map", PACKED), *self._confidence])

    @property
    def columns(self) -> pa.Schema:
        return pa.schema([("image", schema.MEDIA), (self.condition.name, schema.MEDIA), *self._confidence])

    @property
    def schema_metadata(self) -> Mapping[str, str]:
        return encoding_notes([self.condition])

    @property
    def _confidence(self) -> list[tuple[str, pa.DataType]]:
        return [] if self.ensemble_size is None else [(CONFIDENCE, pa.float32())]

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
        estimate = (
            model.estimate
            if self.ensemble_size is None
            else partial(model.estimate_ensemble, ensemble_size=self.ensemble_size)
        )
        options = {"seeds": seeds, "num_views": self.num_views, "options": self.sampling}
        estimates = by_row(partial(estimate, images, self.condition.name, **options))
        encode = model.adapter_kind(self.condition.name).encode
        return [each if isinstance(each, SampleError) else self._result(each, encode) for each in estimates]

    def _result(self, estimate: Any, encode: Any) -> Row | SampleError:
        values = estimate if self.ensemble_size is None else estimate.map
        if not np.isfinite(values).all():
            return SampleError("model", "it returned values that are not finite")
        confidence = {} if self.ensemble_size is None else {CONFIDENCE: estimate.confidence}
        return {"map": pack(encode(values)), **confidence}

    def write(self, row: Row) -> Row:
        stem = schema.stem_of(row["key"])
        full = resize_map(unpack(row["map"]), (row["width"], row["height"]))
        confidence = {} if self.ensemble_size is None else {CONFIDENCE: row[CONFIDENCE]}
        return {
            "image": {"bytes": row["image"], "path": file_name(row["image_name"] or stem, row["image"])},
            self.condition.name: stored(full, f"{stem}.{self.condition.name}"),
            **confidence,
        }
