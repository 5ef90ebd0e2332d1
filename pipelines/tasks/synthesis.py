"""The task of generating an image that follows the conditions of a row.

Tested in tests/pipelines/tasks/test_generation.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.dataset import schema
from pipelines.errors import SampleError
from pipelines.images.codec import PACKED, open_and_keep_map, pack, resize_map, shrunk_size, stored_bytes, unpack
from pipelines.samples import Sample
from pipelines.stages.task import TOKENS_CUT, Row
from pipelines.tasks.generation import TRANSPORT_AREA_PX, Generation

REFINED = "_refined"
"""Suffix of the columns with conditions that the model has refined."""


@dataclass(frozen=True, kw_only=True)
class Synthesis(Generation):
    """Generates an image from condition maps and a prompt, in the size of the first map."""

    media: Mapping[str, str]
    """Condition -> Parquet column or tar extension of its map."""
    max_pixels: int
    strength: float = 0.0
    """Above 0, the conditions are rough: the model refines them, and they are returned too."""

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([(f"{name}_map", PACKED) for name in self.media])

    @property
    def passthrough(self) -> pa.Schema:
        return pa.schema([(name, pa.large_binary()) for name in self.media])

    @property
    def returned(self) -> tuple[str, ...]:
        return tuple(self.media) if self.strength else ()

    @property
    def columns(self) -> pa.Schema:
        refined = [f"{name}{REFINED}" for name in self.returned]
        media = [(name, schema.MEDIA) for name in ("image", *self.media, *refined)]
        return pa.schema([*media, (TOKENS_CUT, pa.int32())])

    def read(self, sample: Sample) -> Row:
        opened = {
            name: open_and_keep_map(sample.media[column].content, self.max_pixels)
            for name, column in self.media.items()
        }
        width, height = next(iter(opened.values())).size_px
        size = shrunk_size((width, height), TRANSPORT_AREA_PX)
        return {
            "caption": self.caption(sample),
            "width": width,
            "height": height,
            **{f"{name}_map": pack(resize_map(map_.image, size)) for name, map_ in opened.items()},
            **{name: map_.content for name, map_ in opened.items()},
        }

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        first = row[self.inputs.names[0]]
        return model.working_size((first["width"], first["height"]), resolution_px=self.resolution_px)

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        maps = {
            name: [model.adapter_kind(name).decode(unpack(row[f"{name}_map"])) for row in rows] for name in self.media
        }
        prompts = [row["caption"] for row in rows]
        options = self.options(rows, seeds)
        return self.packed_results(model, lambda: model.synthesize(maps, prompts, strength=self.strength, **options))

    def write(self, row: Row) -> Row:
        stem = schema.stem_of(row["key"])
        new = self.written(row, (row["width"], row["height"]))
        return {
            "image": new.pop("image"),
            TOKENS_CUT: new.pop(TOKENS_CUT),
            **{name: stored_bytes(row[name], f"{stem}.{name}") for name in self.media},
            **{f"{name}{REFINED}": refined for name, refined in new.items()},
        }
