"""The rows of a window as batches, in two steps: reading whole groups, then decoding the rows of one worker.

Both run in CPU tasks, which import no torch. Between them rows are stored images, a tenth of the bytes of their pixels.

Tested in tests/pipelines/training/test_windows.py.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.errors import SampleError, SettingError, clipped
from pipelines.images.codec import open_image, open_map
from pipelines.samples import Sample
from pipelines.storage.store import FILES, Store
from pipelines.training.corpus import PlannedCorpus
from pipelines.training.order import Window, batches_of_window
from pipelines.training.packed import RANK, STEP, TOLD, packed_rows
from unicon.colors import oriented_size
from unicon.condition_kinds import CONDITION_KINDS
from unicon.training.views import PairRow, ViewedRow, Views, view_row

SIZE = "size_px"
"""Column with the working size (width, height) of a step."""
MAX_ASPECT_ERROR = 0.1
"""Largest relative difference between the aspect ratios of a map and its image, from rounded sides."""
STORED = pa.list_(
    pa.struct(
        [
            ("place", pa.int32()),
            ("key", pa.string()),
            ("caption", pa.string()),
            ("weight", pa.float32()),
            ("image", pa.large_binary()),
            ("maps", pa.list_(pa.large_binary())),
        ]
    )
)
ROWS = "rows"


@dataclass(frozen=True, kw_only=True)
class WindowReader:
    """Reads windows of a corpus. Light enough to be sent to every task once."""

    corpus: PlannedCorpus
    names: tuple[str, ...]
    """Names of the conditions, in the order of the columns."""
    kinds: tuple[str, ...]
    views: Views
    batch_size: int
    seed: int
    max_pixels: int
    store: Store = FILES

    def read(self, window: Window, first_step: int, stop_step: int, world_size: int) -> Iterator[pa.Table]:
        """Yield a table of one row for each step in [first_step, stop_step) and each worker, in order."""
        usable, told = self._usable_rows(window)
        generator = np.random.default_rng([self.seed, window.epoch, window.number])
        sizes = [self.views.bucket(row.size_px, generator) for row in usable]
        for number, (size, rows) in enumerate(batches_of_window(sizes, self.batch_size, generator)):
            step = window.first_step + number
            if first_step <= step < stop_step:
                for rank, places in enumerate(np.array_split(np.arange(self.batch_size), world_size)):
                    stored = [usable[rows[place]].stored(place) for place in places.tolist()]
                    numbers = {STEP: [step], RANK: [rank], SIZE: [list(size)], TOLD: [json.dumps(told)]}
                    yield pa.table({**numbers, ROWS: pa.array([stored], STORED)})
                    told = {}

    def decode(self, table: pa.Table) -> pa.Table:
        """Return the pixels of a table of `read`: the parts of images and maps that its step trains.

        A row that cannot be decoded has black pixels and the weight 0.
        """
        (values,) = table.to_pylist()
        problems: list[tuple[str, str]] = []
        rows = [self._viewed(row, values[STEP], tuple(values[SIZE]), problems) for row in values[ROWS]]
        told = json.loads(values[TOLD])
        if problems:
            told["problems"] = [*told.get("problems", []), *problems]
        return packed_rows(rows, values[STEP], values[RANK], json.dumps(told))

    def _viewed(
        self, row: Mapping[str, Any], step: int, size: tuple[int, int], problems: list[tuple[str, str]]
    ) -> ViewedRow:
        generator = np.random.default_rng([self.seed, step, row["place"]])
        view, kinds = self.views.draw(size, generator), dict(zip(self.names, self.kinds, strict=True))
        try:
            image, _ = open_image(row["image"], self.max_pixels)
            maps = [open_map(content, self.max_pixels)[0] for content in row["maps"]]
            weight = row["weight"]
        except SampleError as error:
            problems.append((row["key"], error.reason))
            image, weight = Image.new("RGB", size), 0.0
            maps = [Image.new("L" if CONDITION_KINDS[kind].channels == 1 else "RGB", size) for kind in self.kinds]
        named = dict(zip(self.names, maps, strict=True))
        return view_row(PairRow(row["key"], image, named, row["caption"], weight), view, kinds)

    def _usable_rows(self, window: Window) -> tuple[list["StoredRow"], dict[str, Any]]:
        """Return as many rows as were planned, and what to tell: rows that cannot be used are replaced by others.

        Raises:
            UnusableWindowError: no row can be used.
        """
        usable: list[StoredRow] = []
        problems: list[tuple[str, str]] = []
        for number in window.groups:
            group, columns = self.corpus.groups[number], self.corpus.columns_of[number]
            for sample in self.corpus.samples(group, columns, self.store):
                try:
                    usable.append(stored_row(sample, group.weight(sample.position)))
                except SampleError as error:
                    problems.append((sample.key, error.reason))
        if not usable:
            raise UnusableWindowError(
                f"--corpus: none of {window.rows} rows that were read together can be used; the first: "
                f"{problems[0][0]}: {problems[0][1]}"
            )
        told = {"problems": problems, "rows": window.rows, "without_caption": sum(not row.caption for row in usable)}
        return [usable[at % len(usable)] for at in range(window.rows)], told


class UnusableWindowError(SettingError):
    """All rows of a window have problems."""


@dataclass(frozen=True, kw_only=True)
class StoredRow:
    """A row as it is stored, of which only the headers of the images were read."""

    key: str
    caption: str
    weight: float
    image: bytes
    maps: tuple[bytes, ...]
    size_px: tuple[int, int]
    """(width, height) of the upright image."""

    def stored(self, place: int) -> dict[str, Any]:
        """Return a value of the type STORED."""
        return {
            "place": place,
            "key": self.key,
            "caption": self.caption,
            "weight": self.weight,
            "image": self.image,
            "maps": list(self.maps),
        }


def stored_row(sample: Sample, weight: float) -> StoredRow:
    """Return the row of a sample.

    Raises:
        SampleError: it could not be read, an image has no readable header, or a map has another shape than its image.
    """
    if sample.problem is not None:
        raise sample.problem
    size_px = size_in_header(sample.image, "image")
    for name, media in sample.media.items():
        check_shape(name, size_in_header(media.content, name), size_px)
    maps = tuple(media.content for media in sample.media.values())
    caption = " ".join(sample.caption.split())
    return StoredRow(key=sample.key, caption=caption, weight=weight, image=sample.image, maps=maps, size_px=size_px)


def size_in_header(content: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) of a stored image after its EXIF rotation. Raises SampleError if it has no header."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return oriented_size(image)
    except Exception as error:  # Pillow raises almost any type for broken files
        raise SampleError("decode", f"{name} is no image that can be read: {clipped(str(error))}") from error


def check_shape(name: str, map_px: tuple[int, int], image_px: tuple[int, int]) -> None:
    """Raise SampleError if a map has another aspect ratio than its image."""
    stretch = (map_px[0] / map_px[1]) / (image_px[0] / image_px[1])
    if abs(math.log(stretch)) > MAX_ASPECT_ERROR:
        raise SampleError(
            "decode", f"{name} has {map_px[0]} x {map_px[1]} pixels, another shape than its image of {image_px[0]} x "
            f"{image_px[1]}"
        )  # fmt: skip
