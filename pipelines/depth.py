"""Depth estimation, stage by stage: pictures in, rows with 16-bit depth maps out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines import blocks, pictures, schema
from pipelines.errors import SampleError
from pipelines.publish import publish_block
from pipelines.readers import read_chunk
from pipelines.samples import Chunk, Columns, Sample

TRANSPORT_AREA_PX = 768 * 768
"""Pictures travel to the actor no larger than this; its model works on fewer pixels anyway."""
NOTES = {
    "depth_encoding": "16-bit PNG, relative inverse depth, 0 = far, 65535 = near; its scale differs from row to row",
}
ROWS = schema.with_features(
    pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("image", schema.MEDIA),
            pa.field("depth", schema.MEDIA),
            pa.field("caption", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("shard", pa.string()),
            pa.field("position", pa.int64()),
            pa.field("model", pa.string()),
            pa.field("weights_sha256", pa.string()),
            pa.field("adapter", pa.string()),
            pa.field("seed", pa.int64()),
            pa.field("num_inference_steps", pa.int32()),
            pa.field("guidance_scale", pa.float32()),
            pa.field("code_version", pa.string()),
        ]
    ),
    NOTES,
)
READ_COLUMNS = pa.schema(
    [
        ("image", pa.large_binary()),
        ("image_name", pa.string()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("pixels", pa.large_binary()),
        ("pixels_width", pa.int32()),
        ("pixels_height", pa.int32()),
    ]
)


def row_seed(run_seed: int, key: str) -> int:
    """The seed of a row, 63 bits: a function of the run's seed and the row's key, the same on every machine."""
    digest = hashlib.sha256(f"{run_seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class ReadPictures:
    """First stage: the samples of a chunk, decoded, small enough to travel."""

    columns: Columns
    max_pixels: int

    def __call__(self, chunk: Chunk) -> pa.Table:
        rows = [self._row(sample) for sample in read_chunk(chunk, self.columns)]
        return blocks.new_block(chunk, rows, READ_COLUMNS)

    def _row(self, sample: Sample) -> dict[str, Any]:
        row: dict[str, Any] = {"position": sample.position, "key": sample.key}
        try:
            if sample.problem is not None:
                raise sample.problem
            image, stored_format = pictures.open_picture(sample.image, self.max_pixels)
        except SampleError as error:
            return {**row, "error_stage": error.stage, "error_reason": error.reason}
        small = pictures.shrink(image, TRANSPORT_AREA_PX)
        keep = stored_format in pictures.KEPT_FORMATS
        return {
            **row,
            "image": sample.image if keep else pictures.png_bytes(image),
            "image_name": sample.image_name,
            "caption": sample.caption,
            "width": image.width,
            "height": image.height,
            "pixels": small.tobytes(),
            "pixels_width": small.width,
            "pixels_height": small.height,
        }


class DepthPredictor(Protocol):
    """Maps of pictures: float32 (H, W) in [0, 1], 0 far, 1 near, of each picture's size."""

    def estimate(self, images: list[Image.Image], seeds: list[int]) -> list[np.ndarray]: ...

    def working_size(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """The size (width, height) the model works at for a picture; equal sizes share a batch."""
        ...


class PredictorDescription(Protocol):
    """Light and picklable; `build` loads the model in the actor."""

    def build(self) -> DepthPredictor: ...


@dataclass(frozen=True, kw_only=True)
class EstimateDepth:
    """Second stage, as its description: the actor calls `build`."""

    predictor: PredictorDescription
    run_seed: int
    batch_size: int

    def build(self) -> "DepthBlockModel":
        """Load the predictor."""
        return DepthBlockModel(self.predictor.build(), self.run_seed, self.batch_size)


class DepthBlockModel:
    """Second stage, in the actor: adds the depth of every good row, in micro-batches of one working size."""

    def __init__(self, predictor: DepthPredictor, run_seed: int, batch_size: int) -> None:
        self.predictor = predictor
        self.run_seed = run_seed
        self.batches = MicroBatches(batch_size)

    def __call__(self, block: pa.Table) -> pa.Table:
        good = [row for row, stage in enumerate(block.column("error_stage").to_pylist()) if stage is None]
        images = dict(zip(good, _images(block.take(pa.array(good, pa.int64()))), strict=True))
        keys = block.column("key").to_pylist()
        stages = block.column("error_stage").to_pylist()
        reasons = block.column("error_reason").to_pylist()
        depths: list[bytes | None] = [None] * block.num_rows
        by_size: dict[tuple[int, int], list[int]] = {}
        for row, image in images.items():
            by_size.setdefault(self.predictor.working_size(image.size), []).append(row)
        for size, rows in by_size.items():
            estimate = self._estimator(images, keys)
            for row, result in self.batches.run(rows, size, estimate):
                if isinstance(result, SampleError):
                    stages[row], reasons[row] = result.stage, result.reason
                else:
                    depths[row] = pictures.depth_levels(result).tobytes()
        columns = {
            "error_stage": pa.array(stages, pa.string()),
            "error_reason": pa.array(reasons, pa.string()),
            "levels": pa.array(depths, pa.large_binary()),
        }
        return blocks.set_columns(block, columns, drop=["pixels"])

    def _estimator(self, images: Mapping[int, Image.Image], keys: Sequence[str]) -> Callable[[list[int]], list[Any]]:
        def estimate(rows: list[int]) -> list[Any]:
            seeds = [row_seed(self.run_seed, keys[row]) for row in rows]
            return [_checked(depth) for depth in self.predictor.estimate([images[row] for row in rows], seeds)]

        return estimate


class MicroBatches:
    """Cuts rows into batches; halves a batch that does not fit into memory and remembers what fits, by area."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.fits: dict[int, int] = {}
        """Area in pixels -> rows, where less than `batch_size` was found to fit."""

    def limit(self, area_px: int) -> int:
        """Rows to try at once: what fitted at this area or a smaller one."""
        return min([self.batch_size, *(rows for area, rows in self.fits.items() if area <= area_px)])

    def run(
        self, rows: Sequence[int], size_px: tuple[int, int], estimate: Callable[[list[int]], list[Any]]
    ) -> list[tuple[int, Any]]:
        """(row, result) of all rows; a row that does not fit alone has a SampleError for a result."""
        area_px = size_px[0] * size_px[1]
        results: list[tuple[int, Any]] = []
        at = 0
        while at < len(rows):
            batch = list(rows[at : at + self.limit(area_px)])
            try:
                results += zip(batch, estimate(batch), strict=True)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) > 1:
                    self.fits[area_px] = len(batch) // 2
                    continue
                reason = f"out of memory for one picture at {size_px[0]} x {size_px[1]}: {error}"
                results.append((batch[0], SampleError("estimate", reason)))
            at += len(batch)
        return results


def is_out_of_memory(error: BaseException) -> bool:
    """torch's accelerator error, its CPU allocator's RuntimeError, or Python's own."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in text
        or "out of memory" in text.lower()
    )


@dataclass(frozen=True, kw_only=True)
class PublishDepth:
    """Third stage: encode, write one Parquet file, publish it, leave the mark."""

    output: str
    provenance: Mapping[str, Any]
    """Columns that are the same in every row: model, weights_sha256, adapter, steps, ..."""
    run_seed: int

    def __call__(self, block: pa.Table) -> dict[str, Any]:
        return publish_block(self.output, block, ROWS, self._row)

    def _row(self, row: Mapping[str, Any], chunk: Chunk) -> dict[str, Any]:
        levels = np.frombuffer(row["levels"], np.uint16).reshape(row["pixels_height"], row["pixels_width"])
        depth = pictures.resize_levels(levels, (row["width"], row["height"]))
        stem = row["key"].rsplit("/", 1)[-1].split(".", 1)[0]
        return {
            "key": row["key"],
            "image": {"bytes": row["image"], "path": row["image_name"] or f"{stem}.png"},
            "depth": {"bytes": pictures.png_bytes(Image.fromarray(depth)), "path": f"{stem}.depth.png"},
            "caption": row["caption"],
            "width": row["width"],
            "height": row["height"],
            "shard": chunk.shard_uri,
            "position": row["position"],
            "seed": row_seed(self.run_seed, row["key"]),
            **self.provenance,
        }


def _checked(depth: np.ndarray) -> "np.ndarray | SampleError":
    if np.isfinite(depth).all():
        return depth
    return SampleError("estimate", "the model returned values that are not finite")


def _images(block: pa.Table) -> list[Image.Image]:
    names = ("pixels", "pixels_width", "pixels_height")
    columns = [block.column(name).to_pylist() for name in names]
    return [Image.frombytes("RGB", (width, height), pixels) for pixels, width, height in zip(*columns, strict=True)]
