"""The rows of a worker's batch as one row of a table, and back without a copy of the pixels.

Shapes: b rows, H W pixels.

Tested in tests/pipelines/training/test_windows.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from unicon.training.views import ViewedRow

STEP, RANK, TOLD = "step", "rank", "told"
"""Columns: numbers of the step and of the worker, and what to tell, as JSON."""
SHAPE, TYPES, IMAGES, MAP = "shape", "types", "images", "map:"
"""Columns: (b, H, W); the types of the maps; the images, uint8 (b, H, W, 3); after the prefix the name of a condition:
its maps."""
TEXTS = ("key", "caption")
NUMBERS = ("weight", "mirrored")


def packed_rows(rows: Sequence[ViewedRow], step: int, rank: int, told: str) -> pa.Table:
    """Return a table of one row with the rows of a batch, which are of one size."""
    columns: dict[str, Any] = {STEP: [step], RANK: [rank], TOLD: [told]}
    columns |= {name: [[getattr(row, name) for row in rows]] for name in (*TEXTS, *NUMBERS)}
    columns[SHAPE] = [[len(rows), *rows[0].image.shape[:2]]]
    columns[IMAGES] = pa.array([np.stack([row.image for row in rows]).tobytes()], pa.large_binary())
    maps = {name: np.stack([row.maps[name] for row in rows]) for name in rows[0].maps}
    columns[TYPES] = [[str(values.dtype) for values in maps.values()]]
    for name, values in maps.items():
        columns[f"{MAP}{name}"] = pa.array([values.tobytes()], pa.large_binary())
    return pa.table(columns)


def unpacked_rows(table: pa.Table) -> list[ViewedRow]:
    """Invert `packed_rows`. The arrays are views of the table and cannot be written."""
    ((count, height, width),) = table.column(SHAPE).to_pylist()
    images = _values(table, IMAGES, np.uint8).reshape(count, height, width, 3)
    names = [name for name in table.column_names if name.startswith(MAP)]
    (types,) = table.column(TYPES).to_pylist()
    maps = {
        name.removeprefix(MAP): _values(table, name, kind).reshape(count, height, width, -1)
        for name, kind in zip(names, types, strict=True)
    }
    columns = [table.column(name).to_pylist()[0] for name in (*TEXTS, *NUMBERS)]
    return [
        ViewedRow(
            key=key,
            image=images[at],
            maps={name: values[at, ..., 0] if values.shape[-1] == 1 else values[at] for name, values in maps.items()},
            caption=caption,
            weight=weight,
            mirrored=mirrored,
        )
        for at, (key, caption, weight, mirrored) in enumerate(zip(*columns, strict=True))
    ]


def _values(table: pa.Table, name: str, kind: Any) -> np.ndarray:
    return np.frombuffer(table.column(name).chunk(0)[0].as_buffer(), kind)
