"""Small corpora for training: images with edges and depth, as Parquet outputs of this project."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from pipelines.dataset import schema
from tests.support.images import square

SIZES = ((64, 48), (48, 64), (56, 56))


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def corpus_row(number: int) -> dict[str, Any]:
    """Return a row: a bright square, its edges, a depth of 16 bits, a caption and a rating of 1 to 3."""
    width, height = SIZES[number % len(SIZES)]
    left, top = width // 8 + number % 5, height // 6 + number % 7
    image = square((width, height), (left, top, left + width // 2, top + height // 2))
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES)
    depth = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return {
        "key": f"row-{number:03d}",
        "image": {"bytes": png(image), "path": f"row-{number:03d}.png"},
        "canny": {"bytes": png(edges), "path": None},
        "depth": {"bytes": png(depth), "path": None},
        "caption": f"square {number}",
        "rating": number % 3 + 1,
        "canny_engine": "controlnet-aux:canny",
    }


def write_corpus(folder: Path, rows: int = 48, files: int = 3, **changed: dict[int, Any]) -> Path:
    """Write a corpus in several files with two row groups each.

    Args:
        folder: Where to write.
        rows: Number of rows of all files.
        files: Number of files.
        changed: Column -> number of a row -> its value.
    """
    columns: list[tuple[str, pa.DataType]] = [
        ("key", pa.string()), ("image", schema.MEDIA), ("canny", schema.MEDIA), ("depth", schema.MEDIA),
        ("caption", pa.string()), ("rating", pa.float32()), ("canny_engine", pa.string()),
    ]  # fmt: skip
    described = schema.with_features(pa.schema(columns), {"canny_kind": "edge", "depth_kind": "depth"})
    (folder / "data").mkdir(parents=True, exist_ok=True)
    found = [corpus_row(number) for number in range(rows)]
    for column, values in changed.items():
        for number, value in values.items():
            found[number][column] = value
    for file in range(files):
        table = pa.Table.from_pylist(found[file::files], schema=described)
        pq.write_table(table, folder / "data" / f"{file}.parquet", row_group_size=-(-table.num_rows // 2))
    return folder
