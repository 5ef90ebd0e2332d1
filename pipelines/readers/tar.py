"""WebDataset tars: an index from the headers alone, and the samples of one chunk.

The rule of https://github.com/webdataset/webdataset#the-webdataset-format: consecutive members whose path is equal up
to the first dot of the base name are one sample; that path (folders included) is its key, the rest the extension.
Tars joined to one file (`cat a.tar b.tar`) are read one after the other; a sample lies in one of them.

A plain tar is entered by seeking, so a chunk costs its own bytes. So is a compressed one whose points of entry are
known (`pipelines.readers.gzip_index`). Otherwise, and where it is damaged, it is unpacked from its start for every
chunk: correct, constant in memory, and slower.
"""

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines.damage import is_damage, reason_of
from pipelines.errors import ShardChangedError
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.images.signatures import kind_of
from pipelines.readers.gzip_index import enter, read_points
from pipelines.readers.references import MAX_FILE_BYTES
from pipelines.readers.shard_index import INDEX_STRIDE, TarIndex
from pipelines.readers.strict_tar import UNPACKED_AT_ONCE_BYTES, HeaderDamage, StrictInfo, Unpacked
from pipelines.storage.store import FILES, Store
from pipelines.texts import clipped, printable

GZIP_MAGIC = b"\x1f\x8b"


class Member(NamedTuple):
    """One file of a sample."""

    extension: str
    name: str
    content: bytes | None
    """None when it was not asked for, or for the reason in `trouble`."""
    trouble: str = ""
    """Why the content cannot be used: it is too large, or a link."""


def split_name(path: str) -> tuple[str, str] | None:
    """(key, extension in lower case) of a member path; None for members WebDataset ignores."""
    match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", path.removeprefix("./"), re.DOTALL)
    if match is None or match[1].rsplit("/", 1)[-1].startswith("__"):
        return None
    return match[1], match[2].lower()


def is_part_of_name(stem: str) -> bool:
    """Whether what stands before an extension is a piece of a name (`0 (clean)`), and no extension (`seg`, `0001`)."""
    return re.fullmatch(r"[a-z][a-z0-9_-]*|\d+", stem.rpartition(".")[2]) is None


def _overlooked(members: Sequence[Member]) -> list[str]:
    """Images such as `1.5 (edit).jpg` beside a `1.jpg`, which has the same key and is the image of the sample."""
    if len(members) < 2 or not any(member.extension in IMAGE_EXTENSIONS for member in members):
        return []
    split = [(member.name, *member.extension.rpartition(".")) for member in members]
    return [name for name, stem, dot, last in split if dot and last in IMAGE_EXTENSIONS and is_part_of_name(stem)]


def is_compressed(uri: str, store: Store = FILES) -> bool:
    """Whether a tar is gzipped, by its first bytes: names are not always right."""
    with store.open_read(uri, block_size_bytes=512) as file:
        return file.read(2) == GZIP_MAGIC


def index_tar(uri: str, compressed: bool, store: Store = FILES) -> TarIndex:
    """Walk the headers of a tar; data is skipped by seeking when it is not compressed. Memory: the keys of one tar."""
    keys: set[str] = set()
    seek_bytes: list[int] = []
    duplicates: list[int] = []
    samples = 0
    damage = ""
    ignored: list[str] = []
    try:
        with _open_tar(uri, compressed, store, _Entry()) as (tar, unpacked):
            for group in _groups(tar, lambda count, extension: False, ignored.append):
                if samples % INDEX_STRIDE == 0:
                    seek_bytes.append(group.offset_bytes)
                if group.key in keys:
                    duplicates.append(samples)
                keys.add(group.key)
                ignored += _overlooked(group.members)
                samples += 1
            if unpacked is not None:
                unpacked.verify()
    except Exception as error:
        if not is_damage(error):
            raise
        kind = "" if samples else _kind_of_file(uri, compressed, store)
        damage = f"the tar cannot be read beyond sample {samples}: {kind or reason_of(error)}"
    return TarIndex(
        samples=samples,
        seek_bytes=tuple(seek_bytes),
        duplicates=tuple(duplicates),
        damage=damage,
        ignored=len(ignored),
        ignored_name=clipped(ignored[0]) if ignored else "",
    )


def _kind_of_file(uri: str, compressed: bool, store: Store) -> str:
    """What a file is that is no tar, where its first bytes tell."""
    if compressed:
        return ""
    with store.open_read(uri, block_size_bytes=512) as file:
        kind = kind_of(file.read(512))
    return f"it is no tar but {kind}" if kind else ""


def read_tar(
    uri: str,
    compressed: bool,
    start: int,
    stop: int,
    seek_position: int = 0,
    seek_bytes: int = 0,
    is_wanted: Callable[[str], bool] = lambda extension: True,
    gzip_points: str = "",
    store: Store = FILES,
) -> Iterator[tuple[int, str, list[Member]]]:
    """(position, key, members) of the samples [start, stop), entering at a sample whose header offset is known.

    Members of other extensions than `is_wanted` come without content. Memory: the wanted members of one sample, at most
    MAX_FILE_BYTES.

    Raises:
        OSError: the tar is shorter or more damaged than it was when `stop` was planned.
    """
    entries = [_Entry(seek_position, seek_bytes)] if not compressed else [_Entry()]
    if compressed and gzip_points and (known := read_points(gzip_points, store)):
        entries.insert(0, _Entry(seek_position, seek_bytes, known))
    done = start
    trouble: Exception | None = None
    for entry in entries if start < stop else ():
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
            trouble = error
    if start < stop:  # planning saw damage behind `stop` only
        known = f"it had {stop} samples or more, now {done}" + (f": {reason_of(trouble)}" if trouble else "")
        raise ShardChangedError(f"{uri} has changed while the job runs: {known}") from trouble


class _Entry(NamedTuple):
    """Where a tar is entered: a sample, where its first header is, and the gzip points that make that possible."""

    position: int = 0
    offset_bytes: int = 0
    gzip_points: bytes = b""


def _needed(entry: _Entry, start: int, stop: int, is_wanted: Callable[[str], bool]) -> Callable[[int, str], bool]:
    """Whether a member's content is needed: (number of its group behind the entry, extension) -> bool."""
    return lambda count, extension: start <= entry.position + count < stop and is_wanted(extension)


@dataclass
class _Group:
    key: str
    offset_bytes: int
    members: list[Member] = field(default_factory=list)


@contextmanager
def _open_tar(
    uri: str, compressed: bool, store: Store, entry: _Entry
) -> Iterator[tuple[tarfile.TarFile, Unpacked | None]]:
    names = {"encoding": "utf-8", "errors": "surrogateescape", "tarinfo": StrictInfo}
    with store.open_read(uri) as file:
        if entry.gzip_points:
            file, compressed = enter(file, entry.gzip_points, entry.offset_bytes), False
        elif not compressed:
            file.seek(entry.offset_bytes)
        if not compressed:
            with tarfile.open(fileobj=file, mode="r:", **names) as tar:
                yield tar, None
            return
        unpacked = Unpacked(file)
        try:
            with tarfile.open(fileobj=unpacked, mode="r|", bufsize=UNPACKED_AT_ONCE_BYTES, **names) as tar:
                yield tar, unpacked
        except tarfile.TarError as error:
            raise unpacked.damage or error from error


def _groups(
    tar: tarfile.TarFile, is_needed: Callable[[int, str], bool], on_ignored: Callable[[str], None] = lambda path: None
) -> Iterator[_Group]:
    """Consecutive members of one key; only the needed contents (number of the group, extension) are loaded.

    on_ignored: gets the paths of files that have no key or no extension and are not hidden.
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
            repeated = group is not None and any(member.extension == extension for member in group.members)
            if group is not None and (group.key != key or repeated):
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
        return Member(extension, path, None, f"is larger than {MAX_FILE_BYTES} bytes, alone or with its neighbours")
    try:
        file = tar.extractfile(info)
        return Member(extension, path, None if file is None else file.read())
    except HeaderDamage:
        raise
    except Exception as error:  # planning has passed over it: what cannot be read is its content alone
        if not is_damage(error):
            raise
        return Member(extension, path, None, f"cannot be read: {reason_of(error)}")
