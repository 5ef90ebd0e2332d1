"""Stores: file access as a value that is passed to every function that reads or writes files.

`FILES` is the real store, for every URI that `pipelines.storage` supports. The simulation passes a store of its own,
which crashes, delays and interleaves every call (`tests/simulation`).
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Protocol, TypeVar

from pipelines import storage
from pipelines.storage import local_files
from pipelines.storage.file_info import FileInfo

Item = TypeVar("Item")
Result = TypeVar("Result")


class Store(Protocol):
    """Files at URIs. Light and picklable. A call that fails raises OSError, but may have taken effect nevertheless."""

    @property
    def is_concurrent(self) -> bool:
        """Whether several threads may call it at once. A simulation runs one call at a time."""
        ...

    def iter_files(self, root: str) -> Iterator[FileInfo]:
        """Yield every file below `root`, or `root` itself if it is a file; nothing if it does not exist."""
        ...

    def list_uris(self, root: str) -> list[str]:
        """Return the URIs of `iter_files`, sorted."""
        ...

    def glob_files(self, pattern: str) -> list[tuple[str, FileInfo | None]]:
        """Return (URI, file or None for a folder) of everything that matches `pattern`, sorted by URI."""
        ...

    def stat(self, uri: str) -> FileInfo | None:
        """Return the file at a URI, or None if nothing or a folder is there."""
        ...

    def exists(self, uri: str) -> bool:
        """Return whether a file or folder exists."""
        ...

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        """Open for reading with seeks."""
        ...

    def read_bytes(self, uri: str, limit_bytes: int | None = None) -> bytes:
        """Read the whole file. Raises FileNotFoundError, or TooLargeError if it has more than `limit_bytes`."""
        ...

    def publish(self, uri: str, content: bytes) -> None:
        """Write a file atomically: it appears whole or not at all, and replaces an existing file."""
        ...

    def create_once(self, uri: str, content: bytes) -> None:
        """Publish a file unless it exists. If several callers do it at once, exactly one of them creates the file."""
        ...

    def remove(self, uri: str) -> None:
        """Delete a file. It is not an error if the file does not exist."""
        ...

    def pinned(self, fingerprints: Mapping[str, str]) -> "Store":
        """Return the same store, in which the files must have these fingerprints.

        Opening or reading another version raises ShardChangedError. Local disks and S3 report the version of every
        read; on other stores, only opening a file checks it.
        """
        ...

    def settle(self, folders: Sequence[str]) -> None:
        """Make earlier writes and deletions in these folders survive a power failure, whoever made them."""
        ...


@dataclass(frozen=True)
class FsspecStore:
    """Local disks and every store with a driver for fsspec."""

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
"""Number of threads for small files."""
PLANNING_THREADS = 16
"""Number of threads for measuring shards."""


def map_concurrently(
    store: Store, function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Yield `map(function, items)` in order, from up to `threads` threads if the store allows concurrent calls."""
    if not store.is_concurrent:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, items)


def honors_create_once(store: Store, uri: str) -> bool:
    """Return whether `create_once` keeps an existing file, by creating a file at `uri` twice and removing it.

    Nobody else may use `uri`.
    """
    if type(store) is FsspecStore and storage.protocol(uri) == "file":  # a second call is always refused there
        return local_files.can_link(uri.rpartition("/")[0])
    try:
        for content in (b"first", b"second"):
            store.create_once(uri, content)
        return store.read_bytes(uri) == b"first"
    finally:
        store.remove(uri)
