"""Cuts the unfinished parts of shards into chunks, and finds files in the output that finished chunks supersede.

A listing shows what is finished; for folders, the lists in the marks are needed, too. Finished ranges are subtracted as
intervals, so a different `--limit` on the same output neither repeats nor loses a sample. Chunks begin and end at
multiples of the output's chunk size unless a finished one is in the way, so overlapping runs make the same chunks.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.dataset import layout
from pipelines.images.containers import is_image_name
from pipelines.planning.finished import FolderVersion, MarkReader, disjoint_files, disjoint_ranges, shard_ids, unchanged
from pipelines.planning.intervals import cells, gaps
from pipelines.readers.folder import is_sidecar
from pipelines.readers.shard_index import INDEX_STRIDE, MeasuredShard, Shard
from pipelines.samples import Chunk, ChunkFile, chunk_name
from pipelines.storage import file_info

FailedPositions = Callable[[layout.Version], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Files that do not count, of one version or of the remains of one."""

    mark_uri: str
    """Where its mark is or would be; empty if it will have none."""
    marks: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of one run."""

    chunks: tuple[Chunk, ...]
    """What to process."""
    finished: tuple[layout.Version, ...]
    """Finished before, and part of the input of this run."""
    superseded: tuple[Removal, ...]
    """Files of these shards in the output that do not count. They may be removed only if there is nothing left to
    process: until then they may be work in progress, or all there is."""
    samples: int
    """All samples of the input, finished or not; with a limit, also those beyond it that earlier runs finished."""
    waiting: int = 0
    """Samples in errors/ that every run tries again, except for images that have left their folder."""

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing to process and nothing to remove."""
        return not self.chunks and not self.superseded


def make_plan(
    measured: Sequence[MeasuredShard],
    listing: layout.Listing,
    configuration: str,
    chunk_size: int,
    marks: MarkReader | None = None,
    retry: FailedPositions | None = None,
    waiting: FailedPositions = lambda version: (),
) -> Plan:
    """Cut what is not finished into chunks of at most `chunk_size` samples.

    Args:
        measured: The shards of the input.
        listing: The contents of the output.
        configuration: The configuration hash of the run.
        chunk_size: The chunk size of the output.
        marks: Reads the marks of folders.
        retry: Returns the positions of a finished version that are processed again and merged into a new version.
        waiting: Returns the waiting positions of a version of loose images; called only if some images are gone.
    """
    marks = marks or MarkReader()
    stored: dict[str, _Stored] = {}
    for each in (*listing.finished, *listing.remains):
        stored.setdefault(each.name.shard, _Stored([], [])).add(each)
    cuts = []
    for found in measured:
        ids = sorted(shard_ids(found.shard))
        ours = [stored[id_] for id_ in ids if id_ in stored]
        here = _Stored([v for each in ours for v in each.versions], [r for each in ours for r in each.remains])
        if found.shard.is_folder:
            cuts.append(_cut_folder(found, here, marks, configuration, chunk_size, retry, waiting))
        else:
            cuts.append(_cut_range(found, here, configuration, chunk_size, retry))
    return Plan(
        chunks=tuple(chunk for cut in cuts for chunk in cut.chunks),
        finished=tuple(version for cut in cuts for version in cut.finished),
        superseded=tuple(_removal(each) for cut in cuts for each in cut.superseded),
        samples=sum(cut.samples for cut in cuts),
        waiting=sum(cut.waiting for cut in cuts),
    )


def folder_files(shard: Shard) -> list[ChunkFile]:
    """Return the images of a folder, each with its texts: those of `a.jpg` are `a.txt` and `a.jpg.txt`."""
    sidecars: dict[str, list[file_info.FileInfo]] = {}
    for file in shard.files:
        if is_sidecar(file.uri):
            sidecars.setdefault(file.uri.rsplit(".", 1)[0], []).append(file)
    images = []
    for file in shard.files:
        if is_image_name(file.uri):
            beside = [*sidecars.get(file.uri, []), *sidecars.get(file.uri.rsplit(".", 1)[0], [])]
            versions = {each.uri: each.fingerprint for each in (file, *beside)}
            fingerprint = file_info.short_hash(*versions.values())
            uris = tuple(other.uri for other in beside)
            images.append(ChunkFile(uri=file.uri, fingerprint=fingerprint, sidecars=uris, versions=versions))
    return images


class _Stored(NamedTuple):
    """What the output contains of one shard."""

    versions: list[layout.Version]
    remains: list[layout.Remains]

    def add(self, each: layout.Version | layout.Remains) -> None:
        if isinstance(each, layout.Version):
            self.versions.append(each)
        else:
            self.remains.append(each)


class _Cut(NamedTuple):
    """The part of the plan for one shard."""

    finished: list[layout.Version]
    chunks: list[Chunk]
    superseded: list[layout.Version | layout.Remains]
    samples: int
    """Samples that are finished or in a chunk."""
    waiting: int
    """Finished samples that every run tries again."""


def _cut_range(
    found: MeasuredShard, stored: _Stored, configuration: str, chunk_size: int, retry: FailedPositions | None
) -> _Cut:
    """Make chunks of a shard of consecutive samples, for the positions that no finished one covers."""
    shard = found.shard
    valid = disjoint_ranges(stored.versions, shard.fingerprint, configuration)
    done = [(version.name.start, version.name.stop) for version in valid]
    end = max([found.samples, *(stop for _, stop in done)])
    holes = sum(stop - first for first, stop in gaps(0, end, [(0, found.samples), *done]))
    chunks = [
        _range_chunk(found, *cell, configuration)
        for gap in gaps(0, found.samples, done)
        for cell in cells(*gap, chunk_size)
    ]
    again = [
        _again(_range_chunk(found, version.name.start, version.name.stop, configuration), version, positions)
        for version in valid
        if (positions := _to_retry(version, retry))
    ]
    superseded = [
        each
        for each in _others(stored, valid)
        if found.is_whole
        or _is_removed(each)
        or not shard.fingerprint.startswith(each.name.fingerprint)
        or not list(gaps(each.name.start, each.name.stop, done))
    ]
    return _Cut(valid, [*again, *chunks], superseded, end - holes, sum(version.wait for version in valid))


def _others(stored: _Stored, valid: Sequence[layout.Version]) -> list[layout.Version | layout.Remains]:
    """The stored versions and remains that do not count.

    If a limit leaves out a part of the shard, another run may be working on that part; then only what is certainly
    useless is superseded.
    """
    keep = {version.stem for version in valid}
    return [*(version for version in stored.versions if version.stem not in keep), *stored.remains]


def _removal(each: layout.Version | layout.Remains) -> Removal:
    marks = [each.mark_uri] if isinstance(each, layout.Version) else each.marks
    return Removal(mark_uri=each.mark_uri, marks=tuple(marks), files=tuple(each.files))


def _to_retry(version: layout.Version, retry: FailedPositions | None) -> Sequence[int]:
    return retry(version) if retry is not None and version.bad else ()


def _again(chunk: Chunk, version: layout.Version, positions: Sequence[int]) -> Chunk:
    """A chunk that processes some positions of a finished one again; its other rows come from the published files."""
    return dataclasses.replace(
        chunk, only=tuple(sorted(positions)), base_data=version.data_uri, base_errors=version.errors_uri
    )


def _range_chunk(found: MeasuredShard, start: int, stop: int, configuration: str) -> Chunk:
    shard, index = found.shard, found.index
    strides = len(index.seek_bytes) if index is not None else 0
    stride = min(start // INDEX_STRIDE, strides - 1) if strides else 0
    holds_damage = bool(found.damage) and stop == found.total
    return Chunk(
        name=chunk_name(shard.stem, shard.uri, shard.fingerprint, start, stop, configuration),
        shard_uri=shard.uri,
        shard_format=shard.format,
        shard_fingerprint=shard.fingerprint,
        start=start,
        stop=stop,
        seek_position=stride * INDEX_STRIDE,
        seek_bytes=index.seek_bytes[stride] if index is not None and strides else 0,
        gzip_index_uri=index.gzip_index_uri if index is not None else "",
        duplicates=tuple(at for at in index.duplicates if start <= at < stop) if index is not None else (),
        damage=found.damage if holds_damage else "",
        damage_position=stop - 1 if holds_damage else -1,
    )


def _cut_folder(
    found: MeasuredShard,
    stored: _Stored,
    marks: MarkReader,
    configuration: str,
    chunk_size: int,
    retry: FailedPositions | None,
    waiting: FailedPositions,
) -> _Cut:
    """Make chunks of the files of a folder that no finished chunk lists, because files come and go one by one.

    A finished chunk whose files have changed does not count: all of its files are processed again.
    """
    shard = found.shard
    files = folder_files(shard)
    versions = marks.folder_versions(stored.versions)
    current = unchanged(versions, shard, files, configuration)
    valid = disjoint_files(current, files)
    covered = {uri for each in valid for uri in each.files}
    left = [file for file in files[: found.samples] if file.uri not in covered]
    chunks = [_folder_chunk(shard, left[at : at + chunk_size], configuration) for at in range(0, len(left), chunk_size)]
    there = {file.uri: file for file in files}
    again = [
        _again(_folder_chunk(shard, _listed(each, there), configuration), each.version, positions)
        for each in valid
        if (positions := _still_there(each, there, _to_retry(each.version, retry)))
    ]
    finished = [each.version for each in valid]
    of_use = {each.version.stem for each in current if not each.files.keys() <= covered}
    useless = {each.version.stem for each in versions} - of_use
    superseded = [
        each
        for each in _others(stored, finished)
        if found.is_whole
        or _is_removed(each)
        or (each.stem in useless if isinstance(each, layout.Version) else _are_useless(each, finished, covered, marks))
    ]
    waits = sum(_waiting(each, there, waiting) for each in valid)
    return _Cut(finished, [*again, *chunks], superseded, len(covered) + len(left), waits)


def _is_removed(each: layout.Version | layout.Remains) -> bool:
    return isinstance(each, layout.Remains) and each.is_removed


def _are_useless(
    remains: layout.Remains, finished: Sequence[layout.Version], covered: set[str], marks: MarkReader
) -> bool:
    """Whether remains belong to a finished chunk, or their mark lists files of finished ones; else it is unknown."""
    lists = marks.lists(remains.marks).values()
    is_covered = bool(lists) and all(files.keys() <= covered for files in lists)
    return is_covered or any(version.name.text == remains.name.text for version in finished)


def _listed(found: FolderVersion, current: dict[str, ChunkFile]) -> list[ChunkFile]:
    return [current.get(uri, ChunkFile(uri=uri, fingerprint=known)) for uri, known in found.files.items()]


def _still_there(found: FolderVersion, current: dict[str, ChunkFile], positions: Sequence[int]) -> list[int]:
    uris = list(found.files)
    return [at for at in positions if uris[at] in current]


def _waiting(found: FolderVersion, current: dict[str, ChunkFile], waiting: FailedPositions) -> int:
    """The number of waiting samples of a version whose images still exist."""
    if not found.version.wait or found.files.keys() <= current.keys():
        return found.version.wait
    return len(_still_there(found, current, waiting(found.version)))


def _folder_chunk(shard: Shard, files: list[ChunkFile], configuration: str) -> Chunk:
    content = file_info.short_hash(*(f"{file.uri} {file.fingerprint}" for file in files))
    return Chunk(
        name=chunk_name(shard.stem, shard.uri, content, 0, len(files), configuration),
        shard_uri=shard.uri,
        shard_format=shard.format,
        start=0,
        stop=len(files),
        files=tuple(files),
    )
