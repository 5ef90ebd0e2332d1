"""The files of the simulated storage, each with content, version and time."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from pipelines import storage

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""Start of the simulated clock, on which one step of the world is one second."""
STALE_STEPS = 80
"""Number of steps after which every listing shows a change."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored file."""

    content: bytes
    fingerprint: str
    """Hash of the content, like an ETag: equal contents have equal fingerprints."""
    modified_s: float


class Change(NamedTuple):
    """The previous state of a file that was written or removed."""

    step: int
    uri: str
    before: Stored | None


class Objects:
    """Files by URI; scheduling and failures are simulated by the store."""

    def __init__(self) -> None:
        self.files: dict[str, Stored] = {}
        self._changes: list[Change] = []

    def settle(self) -> None:
        """Show all changes so far in every listing from now on."""
        self._changes.clear()

    def copy(self) -> "Objects":
        """Return an independent copy."""
        other = Objects()
        other.files = dict(self.files)
        return other

    def put(self, uri: str, content: bytes, step: int) -> None:
        """Write a file."""
        self._note(uri, step)
        fingerprint = storage.short_hash(str(len(content)), content.decode("latin1"))
        self.files[uri] = Stored(content, fingerprint, BEGINNING.timestamp() + step)

    def remove(self, uri: str, step: int) -> None:
        """Delete a file if it exists."""
        if uri in self.files:
            self._note(uri, step)
            del self.files[uri]

    def rename(self, before: str, after: str, step: int) -> None:
        """Move everything below one URI to another."""
        for uri in self.below(before):
            self.put(after + uri.removeprefix(before), self.files[uri].content, step)
            self.remove(uri, step)

    def info(self, uri: str) -> storage.FileInfo | None:
        """Return the file as a listing shows it."""
        stored = self.files.get(uri)
        return None if stored is None else _info(uri, stored)

    def below(self, root: str) -> list[str]:
        """Return the sorted URIs of the files below `root`, or `root` itself if it is a file."""
        found = sorted(uri for uri in self.files if uri.startswith(f"{root}/"))
        return [root] if not found and root in self.files else found

    @property
    def changes(self) -> int:
        """Return the number of recorded changes."""
        return len(self._changes)

    def page(self, root: str, after: str, size: int, step: int, changes: int | None = None) -> list[storage.FileInfo]:
        """Return the next page of a listing.

        With `changes`, the listing shows only that number of changes, and all that are older than STALE_STEPS steps.
        """
        files = self.files if changes is None else self._after(changes, step)
        names = sorted(uri for uri in files if uri.startswith(f"{root}/") and uri > after)[:size]
        return [_info(uri, files[uri]) for uri in names]

    def _after(self, changes: int, step: int) -> dict[str, Stored]:
        files = dict(self.files)
        for change in reversed(self._changes[changes:]):
            if change.step < step - STALE_STEPS:
                break
            if change.before is None:
                files.pop(change.uri, None)
            else:
                files[change.uri] = change.before
        return files

    def _note(self, uri: str, step: int) -> None:
        self._changes.append(Change(step, uri, self.files.get(uri)))

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over (URI, content) of all files, sorted by URI."""
        return ((uri, self.files[uri].content) for uri in sorted(self.files))


def _info(uri: str, stored: Stored) -> storage.FileInfo:
    return storage.FileInfo(
        uri=uri, size_bytes=len(stored.content), fingerprint=stored.fingerprint, modified_s=stored.modified_s
    )
