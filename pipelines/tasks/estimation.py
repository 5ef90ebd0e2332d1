"""The task of estimating one or several conditions of every image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
"""Area of the images that actors receive, by default: UniCon and most other engines work on fewer pixels."""
CONFIDENCE = "confidence"
"""Column with the confidence of an ensemble; of several conditions, the ending of their columns after `_`."""


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """Estimates the maps of conditions for each image, and the confidences of ensembles.

    Several conditions share one image branch of the model. Each map is the one that its condition gets alone.
    """

    conditions: tuple[ConditionColumn, ...]
    sampling: SamplingOptions = SamplingOptions()
    """Number of steps None: for each condition the recommendation of its adapter."""
    max_pixels: int
    num_views: int | None = None
    """Number of views of each image that are averaged; None: for each condition the recommendation of its adapter."""
    ensemble_size: int | None = None
    """Number of estimates for each image, or None for a single estimate without a confidence."""
    transport_area_px: int = field(default=TRANSPORT_AREA_PX, repr=False)
    """Images are scaled down to this area before they are sent to the actor."""

    @property
    def rows_per_sample(self) -> int:
        """Rows of micro-batches that the model processes for a sample; a lower bound if the conditions differ."""
        return (self.num_views or 1) * (self.ensemble_size or 1)

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
        return pa.schema([*((map_column(name), PACKED) for name in self.names), *self._confidence_fields])

    @property
    def columns(self) -> pa.Schema:
        media = [(name, schema.MEDIA) for name in ("image", *self.names)]
        return pa.schema([*media, *self._confidence_fields])

    @property
    def schema_metadata(self) -> Mapping[str, str]:
        return encoding_notes(self.conditions)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the conditions."""
        return tuple(condition.name for condition in self.conditions)

    @property
    def confidences(self) -> Mapping[str, str]:
        """Condition -> column with the confidence of its ensemble; empty without ensembles."""
        if self.ensemble_size is None:
            return {}
        return {name: CONFIDENCE if len(self.names) == 1 else f"{name}_{CONFIDENCE}" for name in self.names}

    @property
    def _confidence_fields(self) -> list[tuple[str, pa.DataType]]:
        return [(column, pa.float32()) for column in self.confidences.values()]

    def read(self, sample: Sample) -> Row:
        image, content, (width, height) = open_and_keep(sample.image, self.max_pixels, self.transport_area_px)
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
        alone = self.names[0] if len(self.names) == 1 else None
        estimates = by_row(partial(estimate, images, alone or self.names, **options))
        encodings = {name: model.adapter_kind(name).encode for name in self.names}
        return [
            each if isinstance(each, SampleError) else self._result({alone: each} if alone else each, encodings)
            for each in estimates
        ]

    def _result(self, estimates: Mapping[str, Any], encodings: Mapping[str, Any]) -> Row | SampleError:
        maps = {name: each if self.ensemble_size is None else each.map for name, each in estimates.items()}
        for name, values in maps.items():
            if not np.isfinite(values).all():
                of_several = f" for {name}" if len(maps) > 1 else ""
                return SampleError("model", f"it returned values that are not finite{of_several}")
        return {
            **{map_column(name): pack(encode(maps[name])) for name, encode in encodings.items()},
            **{column: estimates[name].confidence for name, column in self.confidences.items()},
        }

    def write(self, row: Row) -> Row:
        stem, size_px = schema.stem_of(row["key"]), (row["width"], row["height"])
        maps = {name: resize_map(unpack(row[map_column(name)]), size_px) for name in self.names}
        return {
            "image": {"bytes": row["image"], "path": file_name(row["image_name"] or stem, row["image"])},
            **{name: stored(values, f"{stem}.{name}") for name, values in maps.items()},
            **{column: row[column] for column in self.confidences.values()},
        }


def map_column(name: str) -> str:
    """Return the column that carries the map of a condition from the actor to publication."""
    return f"{name}_estimated"
