"""Shards -> chunks, minus the finished ones; and what lies in the output that the finished ones replace.

What is finished is known from a listing, of folders also from the lists in their marks. Finished ranges are subtracted
as intervals, so another `--limit` on the same output neither repeats nor loses a sample. Chunks begin and end at
multiples of the output's chunk size wherever no finished one is in the way, so runs that overlap cut alike.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines import chunk_names, storage
from pipelines.dataset import layout
from pipelines.planning.finished import FolderVersion, MarkReader, disjoint_files, disjoint_ranges, shard_ids, unchanged
from pipelines.readers.shard_index import INDEX_STRIDE, Measured
from pipelines.readers.shards import SIDECAR_EXTENSIONS, Shard, format_of
from pipelines.samples import Chunk, ChunkFile

FailedPositions = Callable[[layout.Version], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Files of one version, or of the remains of one, that do not count."""

    mark_uri: str
    """Where its mark is or would be; empty where it will have none."""
    marks: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of one run."""

    chunks: tuple[Chunk, ...]
    """To do."""
    finished: tuple[layout.Version, ...]
    """Done before, and part of this run's input."""
    superseded: tuple[Removal, ...]
    """What lies in the output of these shards and does not count. To be removed only when nothing is to do: until then
    it may be work in progress, or all there is."""
    samples: int
    """All samples of the input, done and to do: with a limit, also those beyond it that earlier runs did."""
    waiting: int = 0
    """Samples in errors/ that every run tries again; those of images that have left their folder do not count."""

    @property
    def is_complete(self) -> bool:
        """Nothing is to do and nothing to remove."""
        return not self.chunks and not self.superseded


def make_plan(
    measured: Sequence[Measured],
    listing: layout.Listing,
    configuration: str,
    chunk_size: int,
    marks: MarkReader | None = None,
    retry: FailedPositions | None = None,
    waiting: FailedPositions = lambda version: (),
) -> Plan:
    """Cut what is not finished into chunks of at most `chunk_size` samples.

    retry: gives the positions of a finished version that are to be done again; they are merged into a new version.
    waiting: gives those of a version of loose images that wait; only asked where some of its images have gone.
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
        if found.shard.format == "folder":
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


def gaps(start: int, stop: int, taken: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts of [start, stop) that no taken interval covers, ascending."""
    for first, last in sorted(taken):
        if first > start:
            yield start, min(first, stop)
        start = max(start, last)
        if start >= stop:
            return
    if start < stop:
        yield start, stop


def cells(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """[start, stop) cut at the multiples of `size`."""
    while start < stop:
        end = min((start // size + 1) * size, stop)
        yield start, end
        start = end


def folder_files(shard: Shard) -> list[ChunkFile]:
    """The images of a folder, each with the texts beside it: of `a.jpg` those called `a.txt` or `a.jpg.txt`."""
    sidecars: dict[str, list[storage.FileInfo]] = {}
    for file in shard.files:
        if file.uri.rsplit(".", 1)[-1].lower() in SIDECAR_EXTENSIONS:
            sidecars.setdefault(file.uri.rsplit(".", 1)[0], []).append(file)
    images = []
    for file in shard.files:
        if format_of(file.uri) == "image":
            beside = [*sidecars.get(file.uri, []), *sidecars.get(file.uri.rsplit(".", 1)[0], [])]
            versions = {each.uri: each.fingerprint for each in (file, *beside)}
            fingerprint = storage.short_hash(*versions.values())
            uris = tuple(other.uri for other in beside)
            images.append(ChunkFile(uri=file.uri, fingerprint=fingerprint, sidecars=uris, versions=versions))
    return images


class _Stored(NamedTuple):
    """What lies in the output of one shard."""

    versions: list[layout.Version]
    remains: list[layout.Remains]

    def add(self, each: layout.Version | layout.Remains) -> None:
        if isinstance(each, layout.Version):
            self.versions.append(each)
        else:
            self.remains.append(each)


class _Cut(NamedTuple):
    """A shard's part of the plan."""

    finished: list[layout.Version]
    chunks: list[Chunk]
    superseded: list[layout.Version | layout.Remains]
    samples: int
    """Finished or in a chunk."""
    waiting: int
    """Finished, and to be tried again."""


def _cut_range(
    found: Measured, stored: _Stored, configuration: str, chunk_size: int, retry: FailedPositions | None
) -> _Cut:
    """Tars, Parquet files and the like: chunks for the positions that no finished one covers."""
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
        or not shard.fingerprint.startswith(each.name.fingerprint)
        or not list(gaps(each.name.start, each.name.stop, done))
    ]
    return _Cut(valid, [*again, *chunks], superseded, end - holes, sum(version.wait for version in valid))


def _others(stored: _Stored, valid: Sequence[layout.Version]) -> list[layout.Version | layout.Remains]:
    """What does not count. Where a limit leaves out a part of the shard, another run may be at work there: then only
    what is certainly of no use is superseded."""
    keep = {version.stem for version in valid}
    return [*(version for version in stored.versions if version.stem not in keep), *stored.remains]


def _removal(each: layout.Version | layout.Remains) -> Removal:
    marks = [each.mark_uri] if isinstance(each, layout.Version) else each.marks
    return Removal(mark_uri=each.mark_uri, marks=tuple(marks), files=tuple(each.files))


def _to_retry(version: layout.Version, retry: FailedPositions | None) -> Sequence[int]:
    return retry(version) if retry is not None and version.bad else ()


def _again(chunk: Chunk, version: layout.Version, positions: Sequence[int]) -> Chunk:
    """Some positions of a finished chunk, whose other rows come from what it has published."""
    return dataclasses.replace(
        chunk, only=tuple(sorted(positions)), base_data=version.data_uri, base_errors=version.errors_uri
    )


def _range_chunk(found: Measured, start: int, stop: int, configuration: str) -> Chunk:
    shard, index = found.shard, found.index
    strides = len(index.seek_bytes) if index is not None else 0
    stride = min(start // INDEX_STRIDE, strides - 1) if strides else 0
    holds_damage = bool(found.damage) and stop == found.total
    return Chunk(
        name=chunk_names.chunk_name(shard.stem, shard.uri, shard.fingerprint, start, stop, configuration),
        shard_uri=shard.uri,
        shard_format=shard.format,
        shard_fingerprint=shard.fingerprint,
        start=start,
        stop=stop,
        seek_position=stride * INDEX_STRIDE,
        seek_bytes=index.seek_bytes[stride] if index is not None and strides else 0,
        gzip_points=index.gzip_points if index is not None else "",
        duplicates=tuple(at for at in index.duplicates if start <= at < stop) if index is not None else (),
        damage=found.damage if holds_damage else "",
        damage_position=stop - 1 if holds_damage else -1,
    )


def _cut_folder(
    found: Measured,
    stored: _Stored,
    marks: MarkReader,
    configuration: str,
    chunk_size: int,
    retry: FailedPositions | None,
    waiting: FailedPositions,
) -> _Cut:
    """Folders: files come and go one by one, so chunks are made of the files that no finished one lists.

    A finished chunk whose files have changed does not count: all of its files are done again.
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
        or (each.stem in useless if isinstance(each, layout.Version) else _are_useless(each, finished, covered, marks))
    ]
    waits = sum(_waiting(each, there, waiting) for each in valid)
    return _Cut(finished, [*again, *chunks], superseded, len(covered) + len(left), waits)


def _are_useless(
    remains: layout.Remains, finished: Sequence[layout.Version], covered: set[str], marks: MarkReader
) -> bool:
    """Whether remains are of a chunk that is finished, or their mark lists files that are. Of others nobody knows."""
    lists = marks.lists(remains.marks).values()
    is_covered = bool(lists) and all(files.keys() <= covered for files in lists)
    return is_covered or any(version.name.text == remains.name.text for version in finished)


def _listed(found: FolderVersion, current: dict[str, ChunkFile]) -> list[ChunkFile]:
    return [current.get(uri, ChunkFile(uri=uri, fingerprint=known)) for uri, known in found.files.items()]


def _still_there(found: FolderVersion, current: dict[str, ChunkFile], positions: Sequence[int]) -> list[int]:
    uris = list(found.files)
    return [at for at in positions if uris[at] in current]


def _waiting(found: FolderVersion, current: dict[str, ChunkFile], waiting: FailedPositions) -> int:
    """How many samples of a version wait whose images are still there."""
    if not found.version.wait or found.files.keys() <= current.keys():
        return found.version.wait
    return len(_still_there(found, current, waiting(found.version)))


def _folder_chunk(shard: Shard, files: list[ChunkFile], configuration: str) -> Chunk:
    content = storage.short_hash(*(f"{file.uri} {file.fingerprint}" for file in files))
    return Chunk(
        name=chunk_names.chunk_name(shard.stem, shard.uri, content, 0, len(files), configuration),
        shard_uri=shard.uri,
        shard_format=shard.format,
        start=0,
        stop=len(files),
        files=tuple(files),
    )
