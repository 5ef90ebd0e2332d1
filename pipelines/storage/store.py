"""Where files lie, as a value that is passed to whoever reads or writes them.

`FILES` is the real thing: any URI that `pipelines.storage` understands. The simulation passes a store of its own, which
crashes, delays and interleaves every call (`tests/simulation`).
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Protocol, TypeVar

from pipelines import storage
from pipelines.storage import FileInfo, local_files

Item = TypeVar("Item")
Result = TypeVar("Result")


class Store(Protocol):
    """Files behind URIs. Light and picklable. A call that fails raises OSError; it may have taken effect even so."""

    @property
    def is_concurrent(self) -> bool:
        """Whether it may be called from several threads at once. A simulation runs one call at a time."""
        ...

    def iter_files(self, root: str) -> Iterator[FileInfo]:
        """Every file below `root`, or `root` itself when it is a file; none when nothing is there."""
        ...

    def list_uris(self, root: str) -> list[str]:
        """The URIs of `iter_files`, sorted."""
        ...

    def glob_files(self, pattern: str) -> list[tuple[str, FileInfo | None]]:
        """(URI, file; None for a folder) of what matches `pattern`, sorted by URI."""
        ...

    def stat(self, uri: str) -> FileInfo | None:
        """The file at a URI; None when there is none, or a folder."""
        ...

    def exists(self, uri: str) -> bool:
        """Whether a file or folder is there."""
        ...

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        """Open for reading with seeks."""
        ...

    def read_bytes(self, uri: str, limit_bytes: int | None = None) -> bytes:
        """The whole file. Raises FileNotFoundError, and TooLargeError beyond `limit_bytes`."""
        ...

    def publish(self, uri: str, content: bytes) -> None:
        """Make `content` appear at `uri` in one step: whole or not at all, replacing what was there."""
        ...

    def create_once(self, uri: str, content: bytes) -> None:
        """Publish a file unless there is one: of several callers at once, one creates it, the others leave it alone."""
        ...

    def remove(self, uri: str) -> None:
        """Delete a file; a file that is already gone is no error."""
        ...

    def pinned(self, fingerprints: Mapping[str, str]) -> "Store":
        """The same store, in which a file must have the fingerprint that stands here.

        Opening or reading another version raises ShardChangedError. Local disks and S3 tell the version of what they
        read; on other stores only opening a file checks it.
        """
        ...

    def settle(self, folders: Sequence[str]) -> None:
        """Make what is in these folders, and that it is no longer, survive a loss of power, whoever has written it."""
        ...


@dataclass(frozen=True)
class FsspecStore:
    """Local disks and every store that fsspec has a driver for."""

    fingerprints: Mapping[str, str] = field(default_factory=dict, hash=False)
    """See `pinned`."""

    @property
    def is_concurrent(self) -> bool:
        return True

    def iter_files(self, root: str) -> Iterator[FileInfo]:
        return storage.iter_files(root)

    def list_uris(self, root: str) -> list[str]:
        return storage.list_uris(root)

    def glob_files(self, pattern: str) -> list[tuple[str, FileInfo | None]]:
        return storage.glob_files(pattern)

    def stat(self, uri: str) -> FileInfo | None:
        return storage.stat(uri)

    def exists(self, uri: str) -> bool:
        return storage.exists(uri)

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        return storage.open_read(uri, block_size_bytes, self.fingerprints.get(uri, ""))

    def read_bytes(self, uri: str, limit_bytes: int | None = None) -> bytes:
        return storage.read_bytes(uri, limit_bytes, self.fingerprints.get(uri, ""))

    def pinned(self, fingerprints: Mapping[str, str]) -> "FsspecStore":
        return dataclasses.replace(self, fingerprints=fingerprints)

    def publish(self, uri: str, content: bytes) -> None:
        storage.publish(uri, content)

    def create_once(self, uri: str, content: bytes) -> None:
        storage.create_once(uri, content)

    def remove(self, uri: str) -> None:
        storage.remove(uri)

    def settle(self, folders: Sequence[str]) -> None:
        for folder in folders:
            if storage.protocol(folder) == "file" and os.path.isdir(folder):
                local_files.OS_DISK.sync_folder(folder)


FILES = FsspecStore()
READING_THREADS = 16
"""For small files."""


def map_concurrently(
    store: Store, function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """`map(function, items)`, in order, in up to `threads` threads if the store allows concurrent calls."""
    if not store.is_concurrent:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, items)


def honors_create_once(store: Store, uri: str) -> bool:
    """Whether `create_once` keeps what is there, found out by creating a file at `uri` twice, which is removed again.

    `uri` must be a place that nobody else uses.
    """
    if type(store) is FsspecStore and storage.protocol(uri) == "file":  # where the second call is refused in any case
        return local_files.can_link(uri.rpartition("/")[0])
    try:
        for content in (b"first", b"second"):
            store.create_once(uri, content)
        return store.read_bytes(uri) == b"first"
    finally:
        store.remove(uri)
