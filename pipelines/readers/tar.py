"""WebDataset tars: an index from the headers alone, and the samples of one chunk.

The rule of https://github.com/webdataset/webdataset#the-webdataset-format: consecutive members whose path is equal up
to the first dot of the base name are one sample. That path (with folders) is its key, the rest is the extension. Tars
that were joined to one file (`cat a.tar b.tar`) are read one after the other; a sample lies in one of them.

Reading a chunk of a plain tar starts with a seek, so it costs only the chunk's own bytes. The same holds for a
compressed tar with a gzip index (`pipelines.readers.gzip_index`). Otherwise, or if the gzip file is damaged, the tar is
decompressed from its start for every chunk, which is correct and takes constant memory, but is slower.
"""

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from pipelines.errors import ShardChangedError, clipped, printable
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.images.signatures import kind_of
from pipelines.readers.gzip_index import open_at, read_gzip_index
from pipelines.readers.references import MAX_FILE_BYTES
from pipelines.readers.shard_index import INDEX_STRIDE, ShardIndex
from pipelines.readers.strict_tar import DECOMPRESSED_BLOCK_BYTES, DecompressedStream, HeaderDamage, StrictInfo
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.store import FILES, Store

GZIP_MAGIC = b"\x1f\x8b"


class Member(NamedTuple):
    """One file of a sample."""

    extension: str
    name: str
    content: bytes | None
    """None if it was not requested, or for the reason in `problem`."""
    problem: str = ""
    """Why the content cannot be used, such as its size or because it is a link."""


def split_name(path: str) -> tuple[str, str] | None:
    """Split a member's path into (key, lower-case extension); None for members that WebDataset ignores."""
    match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", path.removeprefix("./"), re.DOTALL)
    if match is None or match[1].rsplit("/", 1)[-1].startswith("__"):
        return None
    return match[1], match[2].lower()


def is_part_of_name(stem: str) -> bool:
    """Return whether the text before an extension is part of a name (`0 (clean)`) or an extension (`seg`, `0001`)."""
    return re.fullmatch(r"[a-z][a-z0-9_-]*|\d+", stem.rpartition(".")[2]) is None


def _overlooked(members: Sequence[Member]) -> list[str]:
    """Return images such as `1.5 (edit).jpg` beside `1.jpg`, which has the same key and is the sample's image."""
    if len(members) < 2 or not any(member.extension in IMAGE_EXTENSIONS for member in members):
        return []
    split = [(member.name, *member.extension.rpartition(".")) for member in members]
    return [name for name, stem, dot, last in split if dot and last in IMAGE_EXTENSIONS and is_part_of_name(stem)]


def is_compressed(uri: str, store: Store = FILES) -> bool:
    """Return whether a tar is gzipped, by its first bytes rather than by its name."""
    with store.open_read(uri, block_size_bytes=512) as file:
        return file.read(2) == GZIP_MAGIC


def index_tar(uri: str, compressed: bool, store: Store = FILES) -> ShardIndex:
    """Read the headers of a tar; data that is not compressed is skipped. Holds the keys of one tar in memory."""
    keys: set[str] = set()
    seek_bytes: list[int] = []
    duplicates: list[int] = []
    samples = 0
    damage = ""
    ignored: list[str] = []
    try:
        with _open_tar(uri, compressed, store, _Entry()) as (tar, decompressed):
            for group in _groups(tar, lambda count, extension: False, ignored.append):
                if samples % INDEX_STRIDE == 0:
                    seek_bytes.append(group.offset_bytes)
                if group.key in keys:
                    duplicates.append(samples)
                keys.add(group.key)
                ignored += _overlooked(group.members)
                samples += 1
            if decompressed is not None:
                decompressed.verify()
    except Exception as error:
        if not is_damage(error):
            raise
        kind = "" if samples else _kind_of_file(uri, compressed, store)
        damage = f"the tar cannot be read beyond sample {samples}: {kind or reason_of(error)}"
    return ShardIndex(
        samples=samples,
        seek_bytes=tuple(seek_bytes),
        duplicates=tuple(duplicates),
        damage=damage,
        ignored=len(ignored),
        ignored_name=clipped(ignored[0]) if ignored else "",
    )


def _kind_of_file(uri: str, compressed: bool, store: Store) -> str:
    """Return what a file is that is not a tar, if its first bytes show it."""
    if compressed:
        return ""
    with store.open_read(uri, block_size_bytes=512) as file:
        kind = kind_of(file.read(512))
    return f"it is not a tar but {kind}" if kind else ""


def read_tar(
    uri: str,
    compressed: bool,
    start: int,
    stop: int,
    seek_position: int = 0,
    seek_bytes: int = 0,
    is_wanted: Callable[[str], bool] = lambda extension: True,
    gzip_index_uri: str = "",
    store: Store = FILES,
) -> Iterator[tuple[int, str, list[Member]]]:
    """Yield (position, key, members) of the samples [start, stop). Holds at most MAX_FILE_BYTES in memory.

    Args:
        uri: The tar.
        compressed: Whether it is gzipped.
        start: Position of the first sample.
        stop: Position after the last sample.
        seek_position: Position of a sample at or before `start` whose offset is known.
        seek_bytes: Offset of that sample's first header.
        is_wanted: Returns whether members with an extension are loaded; others have no content.
        gzip_index_uri: Index of a compressed tar; empty if there is none.
        store: Where the tar is.

    Raises:
        OSError: the tar is shorter or more damaged than it was when `stop` was planned.
    """
    entries = [_Entry(seek_position, seek_bytes)] if not compressed else [_Entry()]
    if compressed and gzip_index_uri and (gzip_index := read_gzip_index(gzip_index_uri, store)):
        entries.insert(0, _Entry(seek_position, seek_bytes, gzip_index))
    if start < stop:
        yield from _read_range(uri, compressed, start, stop, entries, is_wanted, store)


def _read_range(
    uri: str,
    compressed: bool,
    start: int,
    stop: int,
    entries: Sequence["_Entry"],
    is_wanted: Callable[[str], bool],
    store: Store,
) -> Iterator[tuple[int, str, list[Member]]]:
    """Read from the first entry and, if that fails at damage, the rest from the next one."""
    done = start
    cause: Exception | None = None
    for entry in entries:
        try:
            with _open_tar(uri, compressed, store, entry) as (tar, _):
                for position, group in enumerate(_groups(tar, _needed(entry, done, stop, is_wanted)), entry.position):
                    if position >= done:
                        yield position, group.key, group.members
                        done = position + 1
                    if done >= stop:
                        return
        except Exception as error:
            if not is_damage(error):
                raise
            cause = error
    counts = f"it had {stop} samples or more, now {done}" + (f": {reason_of(cause)}" if cause else "")
    raise ShardChangedError(f"{uri} has changed while the job runs: {counts}") from cause


class _Entry(NamedTuple):
    """Where reading of a tar starts: a sample, the offset of its first header, and the gzip index for a seek."""

    position: int = 0
    offset_bytes: int = 0
    gzip_index: bytes = b""


def _needed(entry: _Entry, start: int, stop: int, is_wanted: Callable[[str], bool]) -> Callable[[int, str], bool]:
    """Return a function of (number of a member's group after the entry, extension): whether to load its content."""
    return lambda count, extension: start <= entry.position + count < stop and is_wanted(extension)


@dataclass
class _Group:
    key: str
    offset_bytes: int
    members: list[Member] = field(default_factory=list)

    def has(self, extension: str) -> bool:
        return any(member.extension == extension for member in self.members)


@contextmanager
def _open_tar(
    uri: str, compressed: bool, store: Store, entry: _Entry
) -> Iterator[tuple[tarfile.TarFile, DecompressedStream | None]]:
    names: Any = {"encoding": "utf-8", "errors": "surrogateescape", "tarinfo": StrictInfo}
    with store.open_read(uri) as file:
        if entry.gzip_index:
            file, compressed = open_at(file, entry.gzip_index, entry.offset_bytes), False
        elif not compressed:
            file.seek(entry.offset_bytes)
        if not compressed:
            with tarfile.open(fileobj=file, mode="r:", **names) as tar:
                yield tar, None
            return
        stream = DecompressedStream(file)
        try:
            with tarfile.open(fileobj=cast(Any, stream), mode="r|", bufsize=DECOMPRESSED_BLOCK_BYTES, **names) as tar:
                yield tar, stream
        except tarfile.TarError as error:
            raise stream.damage or error from error


def _groups(
    tar: tarfile.TarFile, is_needed: Callable[[int, str], bool], on_ignored: Callable[[str], None] = lambda path: None
) -> Iterator[_Group]:
    """Yield groups of consecutive members with the same key.

    Args:
        tar: The open tar.
        is_needed: Function of (number of the group, extension): whether to load a member's content.
        on_ignored: Receives the paths of files without a key or an extension that are not hidden.
    """
    count = 0
    group: _Group | None = None
    last_ignored = ""
    try:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]
            if group is not None and info.begins_tar:  # type: ignore[attr-defined]
                yield group
                count, group = count + 1, None
            path = printable(info.name)
            name = split_name(path) if info.isfile() or info.issym() or info.islnk() else None
            if name is None:
                last_ignored = last_ignored if info.isdir() else path
                if info.isfile() and not re.search(r"(^|/)(\.(?!\.?/)|__)", path):
                    on_ignored(path)
                continue
            key, extension = name
            if group is not None and (group.key != key or group.has(extension)):
                yield group
                count, group = count + 1, None
            group = group or _Group(key, info.offset)
            group.members.append(_member(tar, info, extension, path, group, is_needed(count, extension)))
    except HeaderDamage:
        if group is not None:
            yield group
        raise
    if group is not None:
        yield group
    elif count == 0 and last_ignored:
        raise HeaderDamage(f"none of its files is called KEY.EXTENSION; one is called {clipped(last_ignored)!r}")


def _member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, extension: str, path: str, group: _Group, is_needed: bool
) -> Member:
    if not info.isfile():
        return Member(extension, path, None, f"is a link to {clipped(info.linkname)!r}: a tar is read as a stream")
    if not is_needed:
        return Member(extension, path, None)
    loaded_bytes = sum(len(member.content or b"") for member in group.members)
    if loaded_bytes + info.size > MAX_FILE_BYTES:
        return Member(extension, path, None, f"is larger than {MAX_FILE_BYTES} bytes, alone or with its neighbors")
    try:
        file = tar.extractfile(info)
        return Member(extension, path, None if file is None else file.read())
    except HeaderDamage:
        raise
    except Exception as error:  # planning has skipped over the content, so only the content is damaged
        if not is_damage(error):
            raise
        return Member(extension, path, None, f"cannot be read: {reason_of(error)}")
