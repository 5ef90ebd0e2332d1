"""The task of repainting a part of every image, with conditions of the result.

Tested in tests/pipelines/tasks/test_generation.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.dataset import schema
from pipelines.errors import SampleError
from pipelines.images.codec import (
    PACKED,
    open_and_keep,
    open_and_keep_map,
    open_image,
    open_map,
    pack,
    resize_map,
    stored,
    stored_bytes,
    to_gray,
    unpack,
)
from pipelines.samples import Sample
from pipelines.stages.task import TOKENS_CUT, Row
from pipelines.tasks.generation import GENERATED, TRANSPORT_AREA_PX, Generation


@dataclass(frozen=True, kw_only=True)
class Inpainting(Generation):
    """Repaints images inside their masks; pixels outside the masks stay exactly the same."""

    mask: str
    """Parquet column or tar extension of the mask: white is repainted, black is kept."""
    max_pixels: int

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([("pixels", PACKED), ("mask_pixels", PACKED)])

    @property
    def passthrough(self) -> pa.Schema:
        return pa.schema([("original", pa.large_binary()), ("mask", pa.large_binary())])

    @property
    def columns(self) -> pa.Schema:
        media = [(name, schema.MEDIA) for name in ("image", "original", "mask", *self.returned)]
        return pa.schema([*media, (TOKENS_CUT, pa.int32())])

    def read(self, sample: Sample) -> Row:
        image, original, size_px = open_and_keep(sample.image, self.max_pixels, TRANSPORT_AREA_PX)
        mask, kept_mask, _ = open_and_keep_map(sample.media[self.mask].content, self.max_pixels)
        if mask.size != size_px:
            sizes = f"{mask.width} x {mask.height} pixels, the image {size_px[0]} x {size_px[1]}"
            raise SampleError("decode", f"a mask must have the size of its image; this one has {sizes}")
        return {
            "caption": self.caption(sample),
            "width": size_px[0],
            "height": size_px[1],
            "original": original,
            "mask": kept_mask,
            "pixels": pack(image),
            "mask_pixels": pack(resize_map(to_gray(mask), image.size)),
        }

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        size = row["pixels"]["width"], row["pixels"]["height"]
        return model.working_size(size, resolution_px=self.resolution_px)

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        images = [unpack(row["pixels"]) for row in rows]
        masks = [np.asarray(unpack(row["mask_pixels"]), np.float32) / 255 for row in rows]
        prompts = [row["caption"] for row in rows]
        options = {"condition": self.returned, **self.options(rows, seeds)}
        return self.packed_results(model, lambda: model.inpaint(images, masks, prompts, **options))

    def write(self, row: Row) -> Row:
        stem = schema.stem_of(row["key"])
        size = row["width"], row["height"]
        new = self.written(row, size)
        if (row[GENERATED]["width"], row[GENERATED]["height"]) != size:  # kept pixels must not be resized ones
            new["image"] = stored(self._composed(row, size), stem)
        originals = {name: stored_bytes(row[name], f"{stem}.{name}") for name in self.passthrough.names}
        return {**new, **originals}

    def _composed(self, row: Row, size_px: tuple[int, int]) -> Image.Image:
        painted = unpack(row[GENERATED]).resize(size_px, Image.Resampling.LANCZOS)
        original, _ = open_image(row["original"], size_px[0] * size_px[1])
        mask, _ = open_map(row["mask"], size_px[0] * size_px[1])
        return Image.composite(painted, original, to_gray(mask))
