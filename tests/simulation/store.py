"""The simulated storage as a `pipelines.storage.store.Store`; every call is a point of the world.

Listings come in pages, and later pages may show newer states. A conditional write is atomic, or unconditional if the
storage ignores conditions.
"""

import dataclasses
import fnmatch
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from pipelines import storage
from pipelines.errors import ShardChangedError
from pipelines.storage.errors import StorageError
from pipelines.storage.file_info import FileInfo
from tests.simulation.world import World


@dataclass(frozen=True)
class SimulatedStore:
    """A simulated object store."""

    world: World
    page_files: int = 4
    knows_conditions: bool = True
    """Whether a conditional write keeps an existing object."""
    fingerprints: Mapping[str, str] = field(default_factory=dict, hash=False)
    """See `pinned`."""
    is_concurrent = False

    def iter_files(self, root: str) -> Iterator[FileInfo]:
        """List files page by page."""
        last = ""
        while True:
            self.world.read("list", root)
            changes = self.world.stale_view()
            page = self.world.objects.page(root, last, self.page_files, self.world.step, changes)
            self._note("list", root, f"{len(page)} files{'' if changes is None else ', stale'}")
            yield from page
            if len(page) < self.page_files:
                break
            last = page[-1].uri
        if not last and not page and (file := self.world.objects.info(root)) is not None:
            yield file

    def list_uris(self, root: str) -> list[str]:
        """Return the URIs of `iter_files`."""
        return sorted(file.uri for file in self.iter_files(root))

    def glob_files(self, pattern: str) -> list[tuple[str, FileInfo | None]]:
        """Match files and folders one level below the pattern's folder."""
        folder = pattern.rpartition("/")[0]
        found: dict[str, FileInfo | None] = {}
        for file in self.iter_files(folder):
            name, slash, _ = file.uri.removeprefix(f"{folder}/").partition("/")
            if fnmatch.fnmatchcase(f"{folder}/{name}", pattern):
                found[f"{folder}/{name}"] = None if slash else file
        return sorted(found.items())

    def stat(self, uri: str) -> FileInfo | None:
        """Return information about one file."""
        self.world.read("stat", uri)
        found = self.world.objects.info(uri)
        self._note("stat", uri, "there" if found else "nothing")
        return found

    def exists(self, uri: str) -> bool:
        """Return whether there is a file, or any file below."""
        self.world.read("stat", uri)
        found = bool(self.world.objects.below(uri))
        self._note("stat", uri, "there" if found else "nothing")
        return found

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        """Open the current content, which stays the same if the file is replaced while it is open."""
        return io.BytesIO(self.read_bytes(uri))

    def pinned(self, fingerprints: Mapping[str, str]) -> "SimulatedStore":
        """Return a store that refuses other versions of these files, as on S3."""
        return dataclasses.replace(self, fingerprints=fingerprints)

    def read_bytes(self, uri: str, limit_bytes: int | None = None) -> bytes:
        """Read the whole file."""
        self.world.read("get", uri)
        if self.world.rates.away and uri.endswith(".jpg") and self.world.decide("fetch", self._draw_away):
            self._note("get", uri, "not for now")
            raise StorageError(f"no answer: {uri}", "unreachable")
        stored = self.world.objects.files.get(uri)
        self._note("get", uri, "" if stored else "nothing")
        if stored is None:
            raise FileNotFoundError(f"cannot read {uri}: it does not exist")
        if limit_bytes is not None and len(stored.content) > limit_bytes:
            raise storage.TooLargeError(f"{uri} has more than {limit_bytes} bytes")
        if stored.fingerprint != self.fingerprints.get(uri, stored.fingerprint):
            raise ShardChangedError(f"{uri} has changed")
        return stored.content

    def publish(self, uri: str, content: bytes) -> None:
        """Write an object with one PUT."""
        self.world.write("put", uri, lambda: self.world.objects.put(uri, content, self.world.step))

    def create_once(self, uri: str, content: bytes) -> None:
        """Write an object with one conditional PUT."""

        def create() -> None:
            if not (self.knows_conditions and uri in self.world.objects.files):
                self.world.objects.put(uri, content, self.world.step)

        self.world.write("create", uri, create)

    def remove(self, uri: str) -> None:
        """Remove an object with one DELETE."""
        self.world.write("del", uri, lambda: self.world.objects.remove(uri, self.world.step))

    def settle(self, folders: Sequence[str]) -> None:
        """Do nothing: writes to an object store are durable."""

    def _draw_away(self, rng: random.Random) -> str:
        return "away" if rng.random() < self.world.rates.away else ""

    def _note(self, what: str, uri: str, result: str) -> None:
        current = self.world.scheduler.current
        self.world.note(current.name if current else "main", what, uri, result)
