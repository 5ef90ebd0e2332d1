"""WebDataset tars: an index from the headers alone, and the samples of one chunk.

The rule of https://github.com/webdataset/webdataset#the-webdataset-format: consecutive members whose path is equal up
to the first dot of the base name are one sample; that path (folders included) is its key, the rest the extension.

A plain tar is entered by seeking, so a chunk costs its own bytes. A compressed one has to be unpacked from its start
for every chunk: correct, constant in memory, and slower; give such shards a large `--chunk-size`, or unpack them once.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines import storage

INDEX_STRIDE = 32
MAX_MEMBER_BYTES = 1 << 30
DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


class HeaderDamage(tarfile.ReadError):
    """A header that is none: everything before it is whole."""


class Member(NamedTuple):
    """One file of a sample."""

    extension: str
    name: str
    content: bytes | None
    """None when it is larger than MAX_MEMBER_BYTES or was not asked for."""


@dataclass(frozen=True, kw_only=True)
class TarIndex:
    """What planning knows of a tar."""

    samples: int
    seek_bytes: tuple[int, ...]
    """Header offset of every INDEX_STRIDE-th sample (plain tars; empty for compressed ones)."""
    duplicates: tuple[int, ...] = ()
    """Positions whose key an earlier sample of the shard has."""
    damage: str = ""
    """Why the rest of the tar cannot be read; empty when it ends as it should."""


def split_name(path: str) -> tuple[str, str] | None:
    """(key, extension in lower case) of a member path; None for members WebDataset ignores."""
    match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", path.removeprefix("./"))
    if match is None or match[1].rsplit("/", 1)[-1].startswith("__"):
        return None
    return match[1], match[2].lower()


def index_tar(uri: str, compressed: bool) -> TarIndex:
    """Walk the headers of a tar; data is skipped by seeking when it is not compressed. Memory: the keys of one tar."""
    keys: set[str] = set()
    seek_bytes: list[int] = []
    duplicates: list[int] = []
    samples = 0
    damage = ""
    try:
        with _open_tar(uri, compressed) as tar:
            for group in _groups(tar, lambda _: False):
                if samples % INDEX_STRIDE == 0 and not compressed:
                    seek_bytes.append(group.offset_bytes)
                if group.key in keys:
                    duplicates.append(samples)
                keys.add(group.key)
                samples += 1
    except DAMAGE as error:
        damage = f"the tar cannot be read beyond sample {samples}: {error}"
    return TarIndex(samples=samples, seek_bytes=tuple(seek_bytes), duplicates=tuple(duplicates), damage=damage)


def read_tar(
    uri: str, compressed: bool, start: int, stop: int, seek_position: int = 0, seek_bytes: int = 0
) -> Iterator[tuple[int, str, list[Member]]]:
    """(position, key, members) of the samples [start, stop), entering at a sample whose header offset is known."""
    if compressed:
        seek_position = seek_bytes = 0
    if start >= stop:
        return
    done = start
    with _open_tar(uri, compressed, seek_bytes) as tar:
        groups = _groups(tar, lambda count: start <= seek_position + count < stop)
        try:
            for position, group in enumerate(groups, seek_position):
                if position >= start:
                    yield position, group.key, group.members
                    done = position + 1
                if done >= stop:
                    return
        except DAMAGE as error:  # planning saw the same damage behind `stop`, or the tar has changed since
            raise OSError(
                f"{uri} has changed while the job runs: sample {done} was readable before: {error}"
            ) from error
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


@contextmanager
def _open_tar(uri: str, compressed: bool, seek_bytes: int = 0) -> Iterator[tarfile.TarFile]:
    with storage.open_read(uri) as file:
        file.seek(seek_bytes)
        with tarfile.open(fileobj=file, mode="r|gz" if compressed else "r:", tarinfo=_StrictInfo) as tar:
            yield tar


def _groups(tar: tarfile.TarFile, wanted: Callable[[int], bool]) -> Iterator[_Group]:
    """Consecutive members of one key; contents are loaded for the wanted counts only, members never pile up."""
    count = 0
    group: _Group | None = None
    try:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]
            name = split_name(info.name) if info.isfile() else None
            if name is None:
                continue
            key, extension = name
            repeated = group is not None and any(member.extension == extension for member in group.members)
            if group is not None and (group.key != key or repeated):
                yield group
                count, group = count + 1, None
            group = group or _Group(key, info.offset)
            group.members.append(Member(extension, info.name, _content(tar, info) if wanted(count) else None))
    except HeaderDamage:
        if group is not None:
            yield group
        raise
    if group is not None:
        yield group


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes | None:
    file = tar.extractfile(info) if info.size <= MAX_MEMBER_BYTES else None
    return None if file is None else file.read()
