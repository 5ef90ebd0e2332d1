"""What lies in the simulated storage: whole files with a content, a version and a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from pipelines import storage

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""A step of the world is a second of its clock."""
STALE_STEPS = 80
"""The number of steps after which a change is in every listing."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored file."""

    content: bytes
    fingerprint: str
    """Of the content, as an etag: the same content has the same one again."""
    modified_s: float


class Change(NamedTuple):
    """What a write or a removal replaced."""

    step: int
    uri: str
    before: Stored | None


class Objects:
    """URI -> file. No scheduling, no failures: those are the store's."""

    def __init__(self) -> None:
        self.files: dict[str, Stored] = {}
        self._changes: list[Change] = []

    def settle(self) -> None:
        """All changes are in every listing from now on."""
        self._changes.clear()

    def copy(self) -> "Objects":
        """The same files, apart."""
        other = Objects()
        other.files = dict(self.files)
        return other

    def put(self, uri: str, content: bytes, step: int) -> None:
        """Write a file."""
        self._note(uri, step)
        fingerprint = storage.short_hash(str(len(content)), content.decode("latin1"))
        self.files[uri] = Stored(content, fingerprint, BEGINNING.timestamp() + step)

    def remove(self, uri: str, step: int) -> None:
        """Delete a file, if there is one."""
        if uri in self.files:
            self._note(uri, step)
            del self.files[uri]

    def rename(self, before: str, after: str, step: int) -> None:
        """Move everything below one place to another."""
        for uri in self.below(before):
            self.put(after + uri.removeprefix(before), self.files[uri].content, step)
            self.remove(uri, step)

    def info(self, uri: str) -> storage.FileInfo | None:
        """The file as a listing shows it."""
        stored = self.files.get(uri)
        return None if stored is None else _info(uri, stored)

    def below(self, root: str) -> list[str]:
        """URIs of the files below a place, sorted; of `root` itself when it is a file."""
        found = sorted(uri for uri in self.files if uri.startswith(f"{root}/"))
        return [root] if not found and root in self.files else found

    @property
    def changes(self) -> int:
        """How many there were."""
        return len(self._changes)

    def page(self, root: str, after: str, size: int, step: int, changes: int | None = None) -> list[storage.FileInfo]:
        """The next files of a listing. changes: it shows no later ones but those older than STALE_STEPS steps."""
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
        """(URI, content) of every file, sorted."""
        return ((uri, self.files[uri].content) for uri in sorted(self.files))


def _info(uri: str, stored: Stored) -> storage.FileInfo:
    return storage.FileInfo(
        uri=uri, size_bytes=len(stored.content), fingerprint=stored.fingerprint, modified_s=stored.modified_s
    )
