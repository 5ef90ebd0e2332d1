"""Places where a gzip stream can be entered, so that a chunk of a compressed tar costs its own bytes.

Made by the package `indexed-gzip` (extra `gzip` of this project): the state of the unpacker every SPACING_BYTES of
unpacked data, or less often in large shards; about half a per cent of the shard's size. Without the package a
compressed tar is unpacked from its start for every chunk.
"""

import hashlib
import io
from typing import IO, cast

from pipelines.storage.store import FILES, Store

try:
    from indexed_gzip import IndexedGzipFile
except ImportError:
    IndexedGzipFile = None

SPACING_BYTES = 8 << 20
MOST_POINTS = 128
"""About: each is 32 kB, and a chunk reads them all."""


def can_enter() -> bool:
    """Whether the package is installed here."""
    return IndexedGzipFile is not None


def find_points(uri: str, size_bytes: int, store: Store = FILES) -> bytes:
    """The points of a whole, undamaged gzip file of this size, to be kept; reads it once. Memory: the points."""
    points = io.BytesIO()
    spacing_bytes = max(SPACING_BYTES, size_bytes // MOST_POINTS)
    with store.open_read(uri) as packed, IndexedGzipFile(fileobj=packed, spacing=spacing_bytes) as unpacked:
        unpacked.build_full_index()
        unpacked.export_index(fileobj=points)
    return points.getvalue()


def points_name(points: bytes, stem: str) -> str:
    """What a file of points is called: by its content, so that a damaged one is known."""
    return f"{stem}-{hashlib.sha256(points).hexdigest()[:32]}.gzidx"


def read_points(uri: str, store: Store = FILES) -> bytes:
    """The points in a file; empty where it is gone or damaged, or the package is not installed here."""
    if not can_enter():
        return b""
    try:
        points = store.read_bytes(uri)
    except FileNotFoundError:
        return b""
    name = uri.rsplit("/", 1)[-1]
    return points if name == points_name(points, name.rpartition("-")[0]) else b""


def enter(packed: IO[bytes], points: bytes, offset_bytes: int) -> IO[bytes]:
    """The unpacked file at an offset into the unpacked data; what lies between the last point and it is unpacked."""
    unpacked = IndexedGzipFile(fileobj=packed)
    unpacked.import_index(fileobj=io.BytesIO(points))
    unpacked.seek(offset_bytes)
    return cast(IO[bytes], unpacked)
