"""The rows of a paired corpus: an image, the maps of several conditions, a caption, and scores.

Tested in tests/jobs/test_build_corpus.py.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pyarrow as pa

from pipelines.dataset import schema
from pipelines.errors import SampleError
from pipelines.images.codec import (
    PACKED,
    file_name,
    open_and_keep,
    open_and_keep_map,
    open_map,
    pack,
    resize_map,
    stored,
    stored_bytes,
    unpack,
)
from pipelines.images.png import png_bytes
from pipelines.samples import Sample
from pipelines.stages.task import COMMON, Row
from pipelines.tasks.captions import CAPTION_MADE, Captions, word_count
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.corpus_filters import Filters
from pipelines.tasks.estimation import TRANSPORT_AREA_PX, map_column

SCORES = pa.schema([("entropy", pa.float32()), ("sharpness", pa.float32()), ("phash", pa.string())])
"""Scores of the image: see `pipelines.quality`."""
COLUMN_TEXTS = {
    "`entropy`": "bits of the histogram of the gray levels, 0 (one color) to 8",
    "`sharpness`": "variance of the Laplacian of the gray levels at a fixed size; small where the image is blurred",
    "`phash`": "perceptual hash of 256 bits; images that look alike differ in few of them",
    "`caption_by`": "where the caption comes from: input, template, or the name of a captioner",
}
"""What the columns hold, for the dataset card."""
OTHER_COLUMNS = ("key", "image", "caption_by", "shard", "position", "error_stage", "error_reason")
MAX_ASPECT_DIFFERENCE = 0.02
"""A map may have another size than its image, but no other shape."""


@dataclass(frozen=True, kw_only=True)
class KeptColumn(ConditionColumn):
    """A condition that the input has already, such as the true depth of rendered scenes."""

    source: str
    """Its Parquet column or tar extension."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """How rows of a corpus are read and written; see `pipelines.stages.task.RowTask`."""

    estimated: tuple[ConditionColumn, ...]
    """The conditions that engines estimate."""
    kept: tuple[KeptColumn, ...] = ()
    captions: Captions = Captions()
    filters: Filters = Filters()
    max_pixels: int

    @property
    def seeds_by_shard(self) -> bool:
        return False

    @property
    def conditions(self) -> tuple[ConditionColumn, ...]:
        """All conditions, in the order of their columns."""
        return (*self.estimated, *self.kept)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all conditions."""
        return tuple(each.name for each in self.conditions)

    @property
    def pairs(self) -> list[tuple[ConditionColumn, ConditionColumn]]:
        """The pairs of columns of one kind, whose agreement is a score."""
        return [pair for pair in combinations(self.conditions, 2) if pair[0].kind == pair[1].kind]

    @property
    def other_columns(self) -> tuple[str, ...]:
        """Names of the columns of rows and blocks beside those of conditions."""
        agreements = [agreement_column(*pair) for pair in self.pairs]
        carried = ("image_name", "fields", "pixels", "measured", CAPTION_MADE, *map(map_column, self.names))
        return (*OTHER_COLUMNS, *SCORES.names, *COMMON.names, *agreements, *carried)

    @property
    def inputs(self) -> pa.Schema:
        return pa.schema([("pixels", PACKED)] if self.estimated or self.captions.captioner else [])

    @property
    def passthrough(self) -> pa.Schema:
        media = [("image", pa.large_binary()), *((each.name, pa.large_binary()) for each in self.kept)]
        texts = [(name, pa.string()) for name in ("image_name", "caption_by", "fields")]
        return pa.schema([*media, *texts, *SCORES])

    @property
    def columns(self) -> pa.Schema:
        media = [(name, schema.MEDIA) for name in ("image", *self.names)]
        agreements = [(agreement_column(*pair), pa.float32()) for pair in self.pairs]
        return pa.schema([*media, *SCORES, *agreements, ("caption_by", pa.string())])

    @property
    def schema_metadata(self) -> Mapping[str, str]:
        kinds = {f"{each.name}_kind": each.kind for each in self.conditions}
        return {**kinds, **{f"{each.name}_encoding": each.encoding for each in self.conditions}}

    def read(self, sample: Sample) -> Row:
        image, content, size_px = open_and_keep(sample.image, self.max_pixels, TRANSPORT_AREA_PX)
        self.filters.check_size(size_px)
        scores = scores_of(image)
        self.filters.check_scores(scores)
        caption = self.captions.read(sample)
        columns = {"key": sample.key, **_sizes(size_px), **scores, **sample.fields}
        if self.captions.are_final(caption["caption"]):
            columns |= _caption_columns(caption)
            self.filters.check_caption(columns["caption_words"])
        self.filters.check_columns(columns, is_complete=False)
        return {
            "image": content,
            "image_name": sample.image_name,
            **caption,
            "width": size_px[0],
            "height": size_px[1],
            **scores,
            "fields": json.dumps(dict(sample.fields), default=str) if sample.fields else None,
            **{each.name: self._kept(each, sample, size_px) for each in self.kept},
            **({"pixels": pack(image)} if self.inputs.names else {}),
        }

    def write(self, row: Row) -> Row:
        stem, size_px = schema.stem_of(row["key"]), (row["width"], row["height"])
        maps = {each.name: unpack(row[map_column(each.name)]) for each in self.estimated}
        caption = self.captions.written(row)
        agreements = self._agreements(row, maps)
        self._filter(row, caption, agreements)
        return {
            "image": {"bytes": row["image"], "path": file_name(row["image_name"] or stem, row["image"])},
            **{name: stored(resize_map(image, size_px), f"{stem}.{name}") for name, image in maps.items()},
            **{each.name: stored_bytes(row[each.name], f"{stem}.{each.name}") for each in self.kept},
            **{name: row[name] for name in SCORES.names},
            **agreements,
            **caption,
        }

    def _kept(self, column: KeptColumn, sample: Sample, size_px: tuple[int, int]) -> bytes:
        """Return the file of a kept map, scaled to the size of its image. Raises SampleError."""
        image, content, found_px = open_and_keep_map(sample.media[column.source].content, self.max_pixels)
        if found_px == size_px:
            return content
        ratio = (found_px[0] / found_px[1]) / (size_px[0] / size_px[1])
        if abs(math.log(ratio)) > MAX_ASPECT_DIFFERENCE:
            raise SampleError(
                "read",
                f"{column.name} has another shape than the image ({found_px[0]} x {found_px[1]} and {size_px[0]} x "
                f"{size_px[1]} pixels)",
            )
        return png_bytes(resize_map(image, size_px))

    def _agreements(self, row: Row, maps: Mapping[str, Any]) -> dict[str, float | None]:
        if not self.pairs:
            return {}
        from pipelines.quality.agreement import agreement
        from unicon.conditions import CONDITIONS

        kept = {each.name: open_map(row[each.name], self.max_pixels)[0] for each in self.kept}
        kinds = {each.name: each.kind for pair in self.pairs for each in pair}
        decoded = {name: CONDITIONS[kind].decode({**maps, **kept}[name]) for name, kind in kinds.items()}
        found = {
            agreement_column(first, second): agreement(decoded[first.name], decoded[second.name], first.kind)
            for first, second in self.pairs
        }
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    def _filter(self, row: Row, caption: Mapping[str, Any], agreements: Mapping[str, float | None]) -> None:
        """Apply the filters on results. Raises SampleError."""
        self.filters.check_agreements(agreements)
        size_px = row["width"], row["height"]
        scores = {name: row[name] for name in SCORES.names}
        fields = json.loads(row["fields"] or "{}")
        columns = {"key": row["key"], **_sizes(size_px), **scores, **fields, **agreements, **_caption_columns(caption)}
        self.filters.check_caption(columns["caption_words"])
        self.filters.check_columns(columns, is_complete=True)


def agreement_column(first: ConditionColumn, second: ConditionColumn) -> str:
    """Return the name of the column with the agreement of two columns."""
    return f"agreement_{first.name}_{second.name}"


def scores_of(image: Any) -> dict[str, Any]:
    """Return the values of SCORES of an RGB image."""
    from pipelines.quality.perceptual_hash import phash
    from pipelines.quality.scores import entropy, sharpness

    return {"entropy": entropy(image), "sharpness": sharpness(image), "phash": phash(image).hex()}


def _sizes(size_px: tuple[int, int]) -> dict[str, Any]:
    return {"width": size_px[0], "height": size_px[1], "aspect": max(size_px) / min(size_px)}


def _caption_columns(caption: Mapping[str, Any]) -> dict[str, Any]:
    """Return what expressions may say about a caption."""
    text = caption["caption"]
    return {"caption": text, "caption_by": caption["caption_by"], "caption_words": word_count(text)}


FILTER_COLUMNS = frozenset(
    {"key", *_sizes((1, 1)), *SCORES.names, *_caption_columns({"caption": "", "caption_by": None})}
)
"""Columns that `--keep` can name in every corpus, beside agreements and fields of the input."""
