"""The rows of a window as batches, in two steps: reading whole groups, then decoding the rows of one worker.

Both run in CPU tasks, which import no torch. Between them rows are stored images, a tenth of the bytes of their pixels.

Tested in tests/pipelines/training/test_windows.py.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from pipelines.errors import SampleError, SettingError, clipped
from pipelines.images.codec import open_image, open_map
from pipelines.readers.chunks import read_chunk
from pipelines.samples import Columns, Sample
from pipelines.storage.store import FILES, Store
from pipelines.training.groups import Group
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
class WindowRows:
    """A window with the groups that it consists of, and the steps in [first_step, stop_step) that it is read for."""

    window: Window
    groups: tuple[Group, ...]
    columns: tuple[Columns, ...]
    """The columns of every group."""
    first_step: int
    stop_step: int


@dataclass(frozen=True, kw_only=True)
class WindowReader:
    """Reads the rows of windows. Light: it is sent to every task. Implements `engine.step_stream.StepReader`."""

    names: tuple[str, ...]
    """Names of the conditions, in the order of the columns."""
    kinds: tuple[str, ...]
    views: Views
    batch_size: int
    """Rows of a step, of all workers together."""
    seed: int
    max_pixels: int
    store: Store = FILES

    def read(self, task: WindowRows, world_size: int) -> Iterator[pa.Table]:
        """Yield a table of one row for each step and each worker, in order."""
        usable, told = self._usable_rows(task)
        window = task.window
        generator = np.random.default_rng([self.seed, window.epoch, window.number])
        by_shape = self.views.aspect_buckets
        sizes = [self.views.size_of(row.size_px) if by_shape else (1, 1) for row in usable]
        for number, (size, rows) in enumerate(batches_of_window(sizes, self.batch_size, generator)):
            step = window.first_step + number
            if not task.first_step <= step < task.stop_step:
                continue
            size = size if by_shape else self.views.random_size(np.random.default_rng([self.seed, step]).random())
            for rank in range(world_size):
                places = places_of(rank, world_size, self.batch_size)
                stored = [usable[rows[place]].stored(place) for place in places]
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
        view = self.views.view(size, np.random.default_rng([self.seed, step, row["place"]]).random(4))
        kinds = dict(zip(self.names, self.kinds, strict=True))
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

    def _usable_rows(self, task: WindowRows) -> tuple[list["StoredRow"], dict[str, Any]]:
        """Return as many rows as were planned, and what to tell: rows that cannot be used are replaced by others.

        Raises:
            UnusableWindowError: no row can be used.
        """
        usable: list[StoredRow] = []
        problems: list[tuple[str, str]] = []
        for group, columns in zip(task.groups, task.columns, strict=True):
            for sample in read_chunk(group.chunk, columns, self.store):
                try:
                    usable.append(stored_row(sample, group.weight(sample.position), columns.media))
                except SampleError as error:
                    problems.append((sample.key, error.reason))
        if not usable:
            raise UnusableWindowError(
                f"--corpus: none of {task.window.rows} rows that are read together can be used; the first, "
                f"{problems[0][0]}: {problems[0][1]}"
            )
        told = {
            "problems": problems,
            "without_caption": [row.key for row in usable if not row.caption],
        }
        return [usable[at % len(usable)] for at in range(task.window.rows)], told


def places_of(rank: int, world_size: int, batch_size: int) -> range:
    """Return the places of a worker in a batch, as `unicon.training.workers.Workers.part` does."""
    size, left = divmod(batch_size, world_size)
    start = rank * size + min(rank, left)
    return range(start, start + size + (rank < left))


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


def stored_row(sample: Sample, weight: float, media: Sequence[str]) -> StoredRow:
    """Return the row of a sample, with the maps of some columns, in their order.

    Raises:
        SampleError: it could not be read, an image has no readable header, or a map has another shape than its image.
    """
    if sample.problem is not None:
        raise sample.problem
    size_px = size_in_header(sample.image, "image")
    maps = tuple(sample.media[name].content for name in media)
    for name, content in zip(media, maps, strict=True):
        check_shape(name, size_in_header(content, name), size_px)
    caption = " ".join(sample.caption.split())
    return StoredRow(key=sample.key, caption=caption, weight=weight, image=sample.image, maps=maps, size_px=size_px)


def size_in_header(content: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) of a stored image after its EXIF rotation. Raises SampleError if it has no header."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            has_exif = image.format != "PNG" or "exif" in image.info  # else Pillow decodes the image to look for it
            return oriented_size(image) if has_exif else image.size
    except UnidentifiedImageError as error:
        raise SampleError("decode", f"{name} is not an image that Pillow can read") from error
    except Exception as error:  # Pillow raises almost any type for broken files
        raise SampleError("decode", f"{name} is a broken image: {clipped(str(error))}") from error


def check_shape(name: str, map_px: tuple[int, int], image_px: tuple[int, int]) -> None:
    """Raise SampleError if a map has another aspect ratio than its image."""
    stretch = (map_px[0] / map_px[1]) / (image_px[0] / image_px[1])
    if abs(math.log(stretch)) > MAX_ASPECT_ERROR:
        raise SampleError(
            "decode", f"{name} has {map_px[0]} x {map_px[1]} pixels, another shape than its image of {image_px[0]} x "
            f"{image_px[1]}"
        )  # fmt: skip
