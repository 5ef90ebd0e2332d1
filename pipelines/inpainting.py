"""The task of painting something new into a part of every picture, with conditions of the result beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines import pictures, schema
from pipelines.errors import SampleError
from pipelines.generation import PICTURE, TRANSPORT_AREA_PX, Generation
from pipelines.samples import Sample
from pipelines.stages import Row


@dataclass(frozen=True, kw_only=True)
class Inpainting(Generation):
    """Pictures with masks in; pictures that differ inside the masks only, out."""

    mask: str
    """Parquet column or tar extension of the mask: white is painted anew, black kept."""
    max_pixels: int

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([("pixels", pictures.PACKED), ("mask_pixels", pictures.PACKED)])

    @property
    def kept(self) -> pa.Schema:
        return pa.schema([("original", pa.large_binary()), ("mask", pa.large_binary())])

    @property
    def columns(self) -> pa.Schema:
        return pa.schema([(name, schema.MEDIA) for name in ("image", "original", "mask", *self.returned)])

    def read(self, sample: Sample) -> Row:
        image, stored_format = pictures.open_picture(sample.image, self.max_pixels)
        content = sample.media[self.mask].content
        mask, mask_format = pictures.open_map(content, self.max_pixels)
        if mask.size != image.size:
            sizes = f"{mask.width} x {mask.height} pixels, the picture {image.width} x {image.height}"
            raise SampleError("decode", f"a mask has the size of its picture; this one has {sizes}")
        size = pictures.shrunk_size(image.size, TRANSPORT_AREA_PX)
        return {
            "caption": self.caption(sample),
            "width": image.width,
            "height": image.height,
            "original": pictures.kept_or_png(sample.image, image, stored_format),
            "mask": pictures.kept_or_png(content, mask, mask_format),
            "pixels": pictures.pack(pictures.shrink(image, TRANSPORT_AREA_PX)),
            "mask_pixels": pictures.pack(pictures.resize_map(pictures.to_grey(mask), size)),
        }

    def working_size(self, model: Any, row: Row) -> tuple[int, int]:
        size = row["pixels"]["width"], row["pixels"]["height"]
        return model.working_size(size, resolution_px=self.resolution_px)

    def compute(self, model: Any, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[Row | SampleError]:
        images = [pictures.unpack(row["pixels"]) for row in rows]
        masks = [np.asarray(pictures.unpack(row["mask_pixels"]), np.float32) / 255 for row in rows]
        prompts = [row["caption"] for row in rows]
        generated = model.inpaint(images, masks, prompts, condition=self.returned, **self.options(rows, seeds))
        return self.travelling(model, generated)

    def write(self, row: Row) -> Row:
        stem = schema.stem_of(row["key"])
        size = row["width"], row["height"]
        new = self.written(row, size)
        if (row[PICTURE]["width"], row[PICTURE]["height"]) != size:  # kept pixels are the original's, not resized ones
            new["image"] = pictures.stored(self._composed(row, size), stem)
        originals = {name: pictures.stored_bytes(row[name], f"{stem}.{name}") for name in self.kept.names}
        return {**new, **originals}

    def _composed(self, row: Row, size_px: tuple[int, int]) -> Image.Image:
        painted = pictures.unpack(row[PICTURE]).resize(size_px, Image.Resampling.LANCZOS)
        original, _ = pictures.open_picture(row["original"], size_px[0] * size_px[1])
        mask, _ = pictures.open_map(row["mask"], size_px[0] * size_px[1])
        return Image.composite(painted, original, pictures.to_grey(mask))
