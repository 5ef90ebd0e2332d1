"""Shards -> chunks, minus the finished ones.

Planning costs the footer and the key column of a Parquet shard, the lines of a JSON file, and one walk over the headers
of a tar, kept in the output root for the next run. What is finished is known from file names alone. Finished ranges are
subtracted as intervals, so another `--chunk-size` or `--limit` on the same output neither repeats nor loses a sample.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from pipelines import gzip_points, json_lines, layout, parquet_shards, storage, tar_shards
from pipelines.errors import SettingError
from pipelines.inputs import SIDECAR_EXTENSIONS, Shard, format_of
from pipelines.samples import Chunk, ChunkFile, Columns

PLANNING_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A shard and what planning must know of it."""

    shard: Shard
    samples: int
    """Positions to account for; a damaged shard has one more, for its unreadable rest."""
    index: tar_shards.TarIndex | None = None
    damage: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of one run."""

    chunks: tuple[Chunk, ...]
    """To do."""
    finished: tuple[layout.Mark, ...]
    """Done by earlier runs, part of this run's input."""
    superseded: tuple[str, ...]
    """URIs of files made from content that has changed since: removed when the new rows are there. Marks come last."""
    samples: int
    """All samples of the input, done and to do: with a limit, also those beyond it that earlier runs did."""


def measure(shards: list[Shard], columns: Columns, output: str, limit: int | None = None) -> list[Measured]:
    """Count the samples of each shard, in a thread pool, stopping when `limit` is reached; checks the columns.

    Raises:
        SettingError: a named column does not exist or has a wrong type.
    """
    measured: list[Measured] = []
    total = 0
    with ThreadPoolExecutor(PLANNING_THREADS) as pool:
        pending = iter(shards)
        while batch := list(islice(pending, PLANNING_THREADS)):
            for found in pool.map(lambda shard: _measure(shard, columns, output), batch):
                if limit is not None:
                    found = _shortened(found, limit - total)
                total += found.samples
                measured.append(found)
            if limit is not None and total >= limit:
                break
    return [found for found in measured if found.samples > 0]


def make_plan(
    measured: list[Measured],
    published: layout.Published,
    configuration: str,
    chunk_size: int,
    retry: Callable[[layout.Mark], Sequence[int]] | None = None,
) -> Plan:
    """Cut what is not finished into chunks of at most `chunk_size` samples.

    retry: gives the failed positions of a finished chunk, which are then done again and merged into its files.
    """
    by_shard: dict[str, list[layout.Mark]] = {}
    for mark in published.marks.values():
        by_shard.setdefault(mark.name.shard, []).append(mark)
    chunks: list[Chunk] = []
    finished: list[layout.Mark] = []
    samples = 0
    for found in measured:
        marks = by_shard.get(storage.short_hash(found.shard.uri), [])
        cut = _cut_folder if found.shard.format == "folder" else _cut_range
        valid, new, accounted = cut(found, marks, configuration, chunk_size)
        samples += accounted
        again = [] if retry is None else [_retry_chunk(found, mark, retry(mark)) for mark in valid if mark.bad]
        chunks += [*(chunk for chunk in again if chunk is not None), *new]
        finished += valid
    ours = {storage.short_hash(found.shard.uri) for found in measured}
    keep = {mark.name.text for mark in finished} | {chunk.name for chunk in chunks}
    return Plan(
        chunks=tuple(chunks),
        finished=tuple(finished),
        superseded=tuple(_superseded(published, ours, keep)),
        samples=samples,
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


class _Cut(NamedTuple):
    """A shard's part of the plan."""

    finished: list[layout.Mark]
    chunks: list[Chunk]
    samples: int
    """In either."""


def _measure(shard: Shard, columns: Columns, output: str) -> Measured:
    if shard.format == "folder":
        return Measured(shard=shard, samples=sum(format_of(file.uri) == "image" for file in shard.files))
    if shard.format == "parquet":
        try:
            index = parquet_shards.index_parquet(shard.uri, columns)
        except pa.ArrowInvalid as error:
            return Measured(shard=shard, samples=1, damage=f"the Parquet file cannot be read: {error}")
        return Measured(shard=shard, samples=index.samples, index=index)
    if columns.where:
        raise SettingError(f"--where {columns.where[0]!r} needs Parquet files; {shard.uri} is none.")
    if shard.format == "jsonl":
        index = json_lines.index_json_lines(shard.uri, columns)
        return Measured(shard=shard, samples=index.samples, index=index)
    shard, index = _tar_index(shard, output)
    return Measured(shard=shard, samples=index.samples + bool(index.damage), index=index, damage=index.damage)


def _tar_index(shard: Shard, output: str) -> tuple[Shard, tar_shards.TarIndex]:
    """The tar, with the format that its content has whatever it is called, and its kept index.

    A new index is kept for the next run.
    """
    uri = layout.index_uri(output, shard.uri, shard.fingerprint)
    try:
        fields = json.loads(storage.read_bytes(uri))
    except FileNotFoundError:
        fields = {}
    if "gzip_points" not in fields:  # none kept, or by a version that knew less
        compressed = tar_shards.is_compressed(shard.uri)
        index = tar_shards.index_tar(shard.uri, compressed)
        if compressed:
            index = _with_points(index, shard, uri.removesuffix(".json") + ".gzidx")
        fields = {"shard": shard.uri, "compressed": compressed, **dataclasses.asdict(index)}
        storage.publish(uri, json.dumps(fields).encode())
    index = tar_shards.TarIndex(
        samples=fields["samples"],
        seek_bytes=tuple(fields["seek_bytes"]),
        duplicates=tuple(fields["duplicates"]),
        damage=fields["damage"],
        gzip_points=fields["gzip_points"],
    )
    return dataclasses.replace(shard, format="tar.gz" if fields["compressed"] else "tar"), index


def _with_points(index: tar_shards.TarIndex, shard: Shard, points_uri: str) -> tar_shards.TarIndex:
    """The index of a compressed tar that can be entered, where that is possible and saves anything."""
    if index.damage or index.samples <= tar_shards.INDEX_STRIDE or not gzip_points.can_enter():
        return dataclasses.replace(index, seek_bytes=())
    storage.publish(points_uri, gzip_points.find_points(shard.uri, shard.size_bytes))
    return dataclasses.replace(index, gzip_points=points_uri)


def _shortened(found: Measured, samples: int) -> Measured:
    """The shard's first `samples` samples; an unreadable rest beyond them is not this run's business."""
    if found.samples <= samples:
        return found
    return Measured(shard=found.shard, samples=max(samples, 0), index=found.index)


def _cut_range(found: Measured, marks: list[layout.Mark], configuration: str, chunk_size: int) -> _Cut:
    """Tars and Parquet: finished chunks of this very content, and chunks for the positions they leave."""
    shard = found.shard
    valid = [
        mark
        for mark in marks
        if mark.name.fingerprint == shard.fingerprint and mark.name.configuration == configuration
    ]
    done = [(mark.name.start, mark.name.stop) for mark in valid]
    end = max([found.samples, *(stop for _, stop in done)])
    holes = sum(stop - first for first, stop in gaps(0, end, [(0, found.samples), *done]))
    chunks = [
        _range_chunk(found, start, min(start + chunk_size, stop), configuration)
        for first, stop in gaps(0, found.samples, done)
        for start in range(first, stop, chunk_size)
    ]
    return _Cut(valid, chunks, end - holes)


def _range_chunk(found: Measured, start: int, stop: int, configuration: str) -> Chunk:
    shard, index = found.shard, found.index
    strides = len(index.seek_bytes) if index is not None else 0
    stride = min(start // tar_shards.INDEX_STRIDE, strides - 1) if strides else 0
    holds_damage = bool(found.damage) and stop == found.samples
    return Chunk(
        name=layout.chunk_name(shard.stem, shard.uri, shard.fingerprint, start, stop, configuration),
        shard_uri=shard.uri,
        shard_format=shard.format,
        start=start,
        stop=stop,
        seek_position=stride * tar_shards.INDEX_STRIDE,
        seek_bytes=index.seek_bytes[stride] if index is not None and strides else 0,
        gzip_points=index.gzip_points if index is not None else "",
        duplicates=tuple(at for at in index.duplicates if start <= at < stop) if index is not None else (),
        damage=found.damage if holds_damage else "",
        damage_position=stop - 1 if holds_damage else -1,
    )


def _retry_chunk(found: Measured, mark: layout.Mark, positions: Sequence[int]) -> Chunk | None:
    """The failed samples of a finished chunk as a chunk of the same name; None when none of them is there any more."""
    if found.shard.format == "folder":
        current = {file.uri: file for file in _folder_files(found.shard)}
        uris = list(json.loads(storage.read_bytes(mark.uri))["files"])
        positions = [at for at in positions if uris[at] in current]
        files = tuple(current.get(uri, ChunkFile(uri=uri, fingerprint="")) for uri in uris)
        chunk = _folder_chunk(found.shard, list(files), mark.name.configuration)
    else:
        chunk = _range_chunk(found, mark.name.start, mark.name.stop, mark.name.configuration)
    return dataclasses.replace(chunk, name=mark.name.text, only=tuple(sorted(positions))) if positions else None


def _cut_folder(found: Measured, marks: list[layout.Mark], configuration: str, chunk_size: int) -> _Cut:
    """Folders: files come and go one by one, so the marks list theirs; chunks are made of the files no mark covers.

    A finished chunk whose files have changed is not valid: its files are done again and its rows replaced.
    """
    shard = found.shard
    files = _folder_files(shard)[: found.samples]
    current = {file.uri: file.fingerprint for file in _folder_files(shard)}
    ours = [mark for mark in marks if mark.name.configuration == configuration]
    with ThreadPoolExecutor(PLANNING_THREADS) as pool:
        contents = list(pool.map(lambda mark: json.loads(storage.read_bytes(mark.uri))["files"], ours))
    valid: list[layout.Mark] = []
    covered: set[str] = set()
    for mark, content in zip(ours, contents, strict=True):
        if all(current.get(uri, fingerprint) == fingerprint for uri, fingerprint in content.items()):
            valid.append(mark)
            covered |= content.keys()
    left = [file for file in files if file.uri not in covered]
    chunks = [_folder_chunk(shard, left[at : at + chunk_size], configuration) for at in range(0, len(left), chunk_size)]
    return _Cut(valid, chunks, len(covered) + len(left))


def _folder_chunk(shard: Shard, files: list[ChunkFile], configuration: str) -> Chunk:
    content = storage.short_hash(*(f"{file.uri} {file.fingerprint}" for file in files))
    return Chunk(
        name=layout.chunk_name(shard.stem, shard.uri, content, 0, len(files), configuration),
        shard_uri=shard.uri,
        shard_format=shard.format,
        start=0,
        stop=len(files),
        files=tuple(files),
    )


def _folder_files(shard: Shard) -> list[ChunkFile]:
    """The images of a folder with the `.txt` and `.json` files of the same name."""
    sidecars: dict[str, list[storage.FileInfo]] = {}
    for file in shard.files:
        if file.uri.rsplit(".", 1)[-1].lower() in SIDECAR_EXTENSIONS:
            sidecars.setdefault(file.uri.rsplit(".", 1)[0], []).append(file)
    images = []
    for file in shard.files:
        if format_of(file.uri) == "image":
            beside = sidecars.get(file.uri.rsplit(".", 1)[0], [])
            fingerprint = storage.short_hash(file.fingerprint, *(other.fingerprint for other in beside))
            uris = tuple(other.uri for other in beside)
            images.append(ChunkFile(uri=file.uri, fingerprint=fingerprint, sidecars=uris))
    return images


def _superseded(published: layout.Published, shards: set[str], keep: set[str]) -> Iterator[str]:
    """Files of these shards that belong to no finished or planned chunk; marks last, so a kill in between is seen."""
    for text, uris in published.files.items():
        name = layout.ChunkName.parse(text)
        if name is not None and name.shard in shards and text not in keep:
            yield from uris
    for text, mark in published.marks.items():
        if mark.name.shard in shards and text not in keep:
            yield mark.uri


def _said(settings: dict[str, object], name: str) -> str:
    return repr(settings[name]) if name in settings else "not given"


def check_configuration(
    published: layout.Published, output: str, configuration: str, settings: dict[str, object]
) -> None:
    """Refuse to mix rows of two configurations in one output.

    Raises:
        SettingError: the output holds rows made with other settings; the message names those that differ.
    """
    others = {mark.name.configuration for mark in published.marks.values()} - {configuration}
    if not others:
        return
    try:
        before = json.loads(storage.read_bytes(layout.configuration_uri(output, others.pop())))
    except FileNotFoundError:
        before = {}
    names = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
    changes = ", ".join(f"{name} was {_said(before, name)} and is now {_said(settings, name)}" for name in names)
    raise SettingError(
        f"--output {output} already holds rows made with other settings: {changes or 'unknown ones'}. One output holds "
        "one configuration. Give the old settings to continue it, or another --output."
    )
