# The class is None without the package, and callers ask `is_available` first.
# pyright: reportOptionalCall=false
"""Random access to gzip files, so that reading a chunk of a compressed tar costs only the bytes of the chunk.

The index is made by the package `indexed-gzip` (the `gzip` extra of this project). It holds the state of the
decompressor every SPACING_BYTES of decompressed data, less often in large shards, and has about 0.5% of the size of the
shard. Without the package, a compressed tar is decompressed from its start for every chunk.
"""

import hashlib
import io
from typing import IO, Any, cast

from pipelines.storage.store import FILES, Store

try:
    import indexed_gzip

    IndexedGzipFile: Any = indexed_gzip.IndexedGzipFile
except ImportError:
    IndexedGzipFile = None

SPACING_BYTES = 8 << 20
MAX_POINTS = 128
"""Approximate limit on the number of access points. Each has 32 kB, and reading a chunk loads all of them."""


def is_available() -> bool:
    """Return whether the package `indexed-gzip` is installed."""
    return IndexedGzipFile is not None


def build_gzip_index(uri: str, size_bytes: int, store: Store = FILES) -> bytes:
    """Read an undamaged gzip file of this size once and return its index. Holds only the index in memory."""
    index = io.BytesIO()
    spacing_bytes = max(SPACING_BYTES, size_bytes // MAX_POINTS)
    with store.open_read(uri) as compressed, IndexedGzipFile(fileobj=compressed, spacing=spacing_bytes) as file:
        file.build_full_index()
        file.export_index(fileobj=index)
    return index.getvalue()


def gzip_index_name(index: bytes, stem: str) -> str:
    """Return the file name of an index. It contains a hash of the content, so that damage is detected."""
    return f"{stem}-{hashlib.sha256(index).hexdigest()[:32]}.gzidx"


def read_gzip_index(uri: str, store: Store = FILES) -> bytes:
    """Read an index; empty if the file is missing or damaged, or the package is not installed."""
    if not is_available():
        return b""
    try:
        index = store.read_bytes(uri)
    except FileNotFoundError:
        return b""
    name = uri.rsplit("/", 1)[-1]
    return index if name == gzip_index_name(index, name.rpartition("-")[0]) else b""


def open_at(compressed: IO[bytes], index: bytes, offset_bytes: int) -> IO[bytes]:
    """Open the decompressed data at an offset. Only what lies between the last access point and it is decompressed."""
    file = IndexedGzipFile(fileobj=compressed)
    file.import_index(fileobj=io.BytesIO(index))
    file.seek(offset_bytes)
    return cast(IO[bytes], file)
