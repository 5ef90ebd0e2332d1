"""WebDataset tars: an index from the headers alone, and the samples of one chunk.

The rule of https://github.com/webdataset/webdataset#the-webdataset-format: consecutive members whose path is equal up
to the first dot of the base name are one sample; that path (folders included) is its key, the rest the extension.

A plain tar is entered by seeking, so a chunk costs its own bytes. So is a compressed one whose points of entry are
known (`pipelines.gzip_points`). Otherwise, and where it is damaged, it is unpacked from its start for every chunk:
correct, constant in memory, and slower.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from pipelines import gzip_points as points
from pipelines.fields import printable
from pipelines.references import MAX_FILE_BYTES
from pipelines.store import FILES, Store

INDEX_STRIDE = 32
UNPACKED_AT_ONCE_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


class HeaderDamage(tarfile.ReadError):
    """A header that is none: everything before it is whole."""


class Member(NamedTuple):
    """One file of a sample."""

    extension: str
    name: str
    content: bytes | None
    """None when it was not asked for, or for the reason in `trouble`."""
    trouble: str = ""
    """Why the content cannot be used: it is too large, or a link."""


@dataclass(frozen=True, kw_only=True)
class TarIndex:
    """What planning knows of a tar, or of another shard of consecutive samples."""

    samples: int
    seek_bytes: tuple[int, ...]
    """Where every INDEX_STRIDE-th sample begins, as `Chunk.seek_bytes` says; in the unpacked data of compressed tars.
    Empty where it cannot be entered."""
    duplicates: tuple[int, ...] = ()
    """Positions whose key an earlier sample of the shard has."""
    damage: str = ""
    """Why the rest cannot be read; empty when the shard ends as it should."""
    gzip_points: str = ""
    """URI of the points where a compressed tar can be entered."""


def split_name(path: str) -> tuple[str, str] | None:
    """(key, extension in lower case) of a member path; None for members WebDataset ignores."""
    match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", path.removeprefix("./"), re.DOTALL)
    if match is None or match[1].rsplit("/", 1)[-1].startswith("__"):
        return None
    return match[1], match[2].lower()


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
    try:
        with _open_tar(uri, compressed, store) as (tar, unpacked):
            for group in _groups(tar, lambda count, extension: False):
                if samples % INDEX_STRIDE == 0:
                    seek_bytes.append(group.offset_bytes)
                if group.key in keys:
                    duplicates.append(samples)
                keys.add(group.key)
                samples += 1
            if unpacked is not None:
                unpacked.verify()
    except DAMAGE as error:
        damage = f"the tar cannot be read beyond sample {samples}: {error}"
    return TarIndex(samples=samples, seek_bytes=tuple(seek_bytes), duplicates=tuple(duplicates), damage=damage)


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
    if compressed and not (gzip_points and points.can_enter()):
        seek_position, seek_bytes, gzip_points = 0, 0, ""
    if start >= stop:
        return
    done = start

    def is_needed(count: int, extension: str) -> bool:
        return start <= seek_position + count < stop and is_wanted(extension)

    try:
        with _open_tar(uri, compressed, store, seek_bytes, gzip_points) as (tar, _):
            for position, group in enumerate(_groups(tar, is_needed), seek_position):
                if position >= start:
                    yield position, group.key, group.members
                    done = position + 1
                if done >= stop:
                    return
    except DAMAGE as error:  # planning saw the same damage behind `stop`, or the tar has changed since
        raise OSError(f"{uri} has changed while the job runs: sample {done} was readable before: {error}") from error
    raise OSError(f"{uri} has changed while the job runs: it had {stop} samples or more, now {done}")


@dataclass
class _Group:
    key: str
    offset_bytes: int
    members: list[Member] = field(default_factory=list)


class _StrictInfo(tarfile.TarInfo):
    """Reports a broken or missing header; tarfile takes both for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise HeaderDamage(f"no tar header at byte {tarfile_.offset} ({error})") from error
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise HeaderDamage("it has no end mark, so it may have been cut short") from error


class _Unpacked:
    """The bytes behind a gzip stream; where they break off, what could be unpacked comes first, then the damage."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._file = gzip.GzipFile(fileobj=packed, mode="rb")
        self.damage: Exception | None = None

    def read(self, size_bytes: int) -> bytes:
        """The next bytes; none at the end and at the damage."""
        if self.damage is not None:
            return b""
        try:
            return self._file.read1(size_bytes)
        except DAMAGE as error:
            self.damage = error
            return b""

    def verify(self) -> None:
        """Read on to the checksum behind the last byte. Raises what is wrong with the stream."""
        while self.read(UNPACKED_AT_ONCE_BYTES):
            pass
        if self.damage is not None:
            raise self.damage


@contextmanager
def _open_tar(
    uri: str, compressed: bool, store: Store, seek_bytes: int = 0, gzip_points: str = ""
) -> Iterator[tuple[tarfile.TarFile, _Unpacked | None]]:
    names = {"encoding": "utf-8", "errors": "surrogateescape", "tarinfo": _StrictInfo}
    with store.open_read(uri) as file:
        if gzip_points:
            file, compressed = points.enter(file, store.read_bytes(gzip_points), seek_bytes), False
        elif not compressed:
            file.seek(seek_bytes)
        if not compressed:
            with tarfile.open(fileobj=file, mode="r:", **names) as tar:
                yield tar, None
            return
        unpacked = _Unpacked(file)
        try:
            with tarfile.open(fileobj=unpacked, mode="r|", bufsize=UNPACKED_AT_ONCE_BYTES, **names) as tar:
                yield tar, unpacked
        except tarfile.TarError as error:
            raise unpacked.damage or error from error


def _groups(tar: tarfile.TarFile, is_needed: Callable[[int, str], bool]) -> Iterator[_Group]:
    """Consecutive members of one key; only the needed contents (number of the group, extension) are loaded."""
    count = 0
    group: _Group | None = None
    last_ignored = ""
    try:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]
            path = printable(info.name)
            name = split_name(path) if info.isfile() or info.issym() or info.islnk() else None
            if name is None:
                last_ignored = last_ignored if info.isdir() else path
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
        raise HeaderDamage(f"none of its files is called KEY.EXTENSION; one is called {last_ignored!r}")


def _member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, extension: str, path: str, group: _Group, is_needed: bool
) -> Member:
    if not info.isfile():
        return Member(extension, path, None, f"is a link to {printable(info.linkname)!r}: a tar is read as a stream")
    if not is_needed:
        return Member(extension, path, None)
    loaded_bytes = sum(len(member.content or b"") for member in group.members)
    if loaded_bytes + info.size > MAX_FILE_BYTES:
        return Member(extension, path, None, f"is larger than {MAX_FILE_BYTES} bytes, alone or with its neighbours")
    file = tar.extractfile(info)
    return Member(extension, path, None if file is None else file.read())
