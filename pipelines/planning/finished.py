"""Chooses the finished versions of a shard's chunks that count: a disjoint set, the same one for every observer.

Overlapping runs, different values of `--limit` and retries leave versions that cover the same samples. Of consecutive
ranges, the one that begins first counts, and of these the longest; of folders, the version with the most files that
still exist. Ties are decided by the fewest failures, then by the fewest waiting samples, then by name. The others are
superseded.

Tested in tests/pipelines/planning/test_plan.py.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines import storage
from pipelines.dataset import layout
from pipelines.readers.shard_index import Shard
from pipelines.samples import ChunkFile
from pipelines.storage.store import FILES, READING_THREADS, Store, map_concurrently


@dataclass(frozen=True, kw_only=True)
class FolderVersion:
    """A finished chunk of loose images, with the files listed in its mark."""

    version: layout.Version
    files: Mapping[str, str]
    """URI -> fingerprint, in the order of positions."""


@dataclass(frozen=True)
class MarkReader:
    """Reads the file lists of marks, each list only once, because the name of a mark determines its content."""

    store: Store = FILES
    _known: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def folder_versions(self, versions: Iterable[layout.Version]) -> list[FolderVersion]:
        """The versions whose mark can be read, without those that another run has just removed."""
        wanted = list(versions)
        lists = self.lists(version.mark_uri for version in wanted)
        return [
            FolderVersion(version=version, files=lists[version.mark_uri])
            for version in wanted
            if version.mark_uri in lists
        ]

    def lists(self, uris: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """URI of a mark -> the files that it lists. Missing and damaged marks are left out, and read again later."""
        wanted = list(uris)
        new = [uri for uri in wanted if uri not in self._known]
        found = zip(new, map_concurrently(self.store, self._files, new, READING_THREADS), strict=True)
        self._known.update({uri: files for uri, files in found if files is not None})
        return {uri: self._known[uri] for uri in wanted if uri in self._known}

    def _files(self, uri: str) -> Mapping[str, str] | None:
        try:
            listed = json.loads(self.store.read_bytes(uri))["files"]
            return {str(name): str(version) for name, version in listed.items()} or None
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, AttributeError, TypeError):  # damaged; its chunk is processed again
            return None


def shard_ids(shard: Shard) -> set[str]:
    """The hashes of a shard in the names of chunks: the current one, and those of version 0.1."""
    spellings = {shard.uri, shard.former_uri or shard.uri}
    return {
        storage.short_hash(shard.uri),
        *(storage.short_hash(uri, digits=storage.OLD_HASH_DIGITS) for uri in spellings),
    }


def disjoint_ranges(versions: Iterable[layout.Version], fingerprint: str, configuration: str) -> list[layout.Version]:
    """The versions that count for a shard of consecutive samples with this content and configuration, by position."""
    return disjoint(
        version
        for version in versions
        if fingerprint.startswith(version.name.fingerprint) and configuration.startswith(version.name.configuration)
    )


def disjoint(versions: Iterable[layout.Version]) -> list[layout.Version]:
    """Choose, among overlapping ranges, the one that begins first; if several do, the longest of them."""
    chosen: list[layout.Version] = []
    covered = 0
    for version in sorted(versions, key=_range_order):
        if version.name.start >= covered:
            chosen.append(version)
            covered = version.name.stop
    return chosen


def _range_order(version: layout.Version) -> tuple[int, int, bool, int, int, str]:
    """Sort key of ranges; a chunk that version 0.1 wrote comes after one that was made from it."""
    return version.name.start, -version.name.stop, version.name.is_old, version.bad, version.wait, version.stem


def unchanged(
    versions: Iterable[FolderVersion], shard: Shard, files: Sequence[ChunkFile], configuration: str
) -> list[FolderVersion]:
    """The versions of a folder without changed files; a file that has left the folder counts as unchanged."""
    versions = list(versions)
    current = {file.uri: file.fingerprint for file in files}
    if any(found.version.name.is_old for found in versions):
        old = _old_fingerprints(shard, files)
        versions = [_translated(found, old) if found.version.name.is_old else found for found in versions]
    return [
        found
        for found in versions
        if configuration.startswith(found.version.name.configuration)
        and all(current.get(uri, fingerprint) == fingerprint for uri, fingerprint in found.files.items())
    ]


def disjoint_files(versions: Iterable[FolderVersion], files: Sequence[ChunkFile]) -> list[FolderVersion]:
    """Choose, among versions that have a file in common, the one with the most files that still exist."""
    current = {file.uri for file in files}
    chosen: list[FolderVersion] = []
    covered: set[str] = set()
    for found in sorted(versions, key=lambda found: _folder_order(found, current)):
        if not covered & found.files.keys():
            chosen.append(found)
            covered |= found.files.keys()
    return chosen


def _folder_order(found: FolderVersion, current: set[str]) -> tuple[int, int, bool, int, int, str]:
    there = sum(uri in current for uri in found.files)
    version = found.version
    return -there, -len(found.files), version.name.is_old, version.bad, version.wait, version.stem


def _old_fingerprints(shard: Shard, files: Sequence[ChunkFile]) -> dict[str, tuple[str, str, str]]:
    """URI in the spelling of version 0.1 -> (current URI, fingerprint of version 0.1, current fingerprint)."""
    by_uri = {file.uri: file.fingerprint for file in shard.files}
    former = shard.former_uri or shard.uri
    found = {}
    for file in files:
        digits = storage.OLD_HASH_DIGITS
        parts = [by_uri[uri][:digits] for uri in (file.uri, *file.sidecars)]
        spelled = former + file.uri.removeprefix(shard.uri) if file.uri.startswith(shard.uri) else file.uri
        found[spelled] = file.uri, storage.short_hash(*parts, digits=digits), file.fingerprint
    return found


def _translated(found: FolderVersion, old: Mapping[str, tuple[str, str, str]]) -> FolderVersion:
    """A chunk that version 0.1 wrote, in the current spelling: an unchanged file gets its current fingerprint."""
    files: dict[str, str] = {}
    for spelled, fingerprint in found.files.items():
        uri, before, now = old.get(spelled, (spelled, fingerprint, fingerprint))
        files[uri] = now if before == fingerprint else fingerprint
    return FolderVersion(version=found.version, files=files)
