"""Places where a gzip stream can be entered, so that a chunk of a compressed tar costs its own bytes.

Made by the package `indexed-gzip` (extra `gzip` of this project): the state of the unpacker every SPACING_BYTES of
unpacked data, about half a per cent of the shard's size. Without the package a compressed tar is unpacked from its
start for every chunk.
"""

import io
from typing import IO, cast

from pipelines import storage

try:
    from indexed_gzip import IndexedGzipFile
except ImportError:
    IndexedGzipFile = None

SPACING_BYTES = 8 << 20


def can_enter() -> bool:
    """Whether the package is installed here."""
    return IndexedGzipFile is not None


def find_points(uri: str) -> bytes:
    """The points of a whole, undamaged gzip file, to be kept; reads it once. Memory: the points."""
    points = io.BytesIO()
    with storage.open_read(uri) as packed, IndexedGzipFile(fileobj=packed, spacing=SPACING_BYTES) as unpacked:
        unpacked.build_full_index()
        unpacked.export_index(fileobj=points)
    return points.getvalue()


def enter(packed: IO[bytes], points: bytes, offset_bytes: int) -> IO[bytes]:
    """The unpacked file at an offset into the unpacked data; at most SPACING_BYTES are unpacked to get there."""
    unpacked = IndexedGzipFile(fileobj=packed)
    unpacked.import_index(fileobj=io.BytesIO(points))
    unpacked.seek(offset_bytes)
    return cast(IO[bytes], unpacked)
