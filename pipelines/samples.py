"""An input sample, the chunk of consecutive samples that is processed as a unit, and the names of chunks.

The names depend on the content only, so repeating a chunk gives the same name.

Tested in tests/pipelines/readers/test_chunks.py.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipelines import storage
from pipelines.errors import SampleError, clipped


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of a sample's fields. None means that the rule below the field decides."""

    image: str | None = None
    """Parquet column, JSON field (both `a.b` if nested) or extension of a tar's member. None means `image` or the only
    column that can be an image; in tars the first of the known image extensions."""
    key: str | None = None
    """Parquet column of unique names. None means `key` or `__key__`, or shard name and row number without these."""
    caption: str | None = None
    """Parquet column, extension of a tar's member or JSON field. None means `caption`, `text` or `prompt`, or the
    `.txt` member. `pipelines.readers.captions` defines what counts as a caption."""
    media: tuple[str, ...] = ()
    """Parquet columns or extensions of tar members of further images, such as conditions and masks."""
    where: tuple[str, ...] = ()
    """Predicates such as `width>=512` on Parquet columns. Only rows that match all of them are samples."""
    fields: tuple[str, ...] = ()
    """Parquet columns, JSON fields or extensions of text members that are read as plain values."""


def repeated_key(key: str) -> SampleError:
    """Return the problem of the second sample with a key within a shard."""
    return SampleError("read", f"duplicate key: an earlier sample of this shard is called {clipped(key, 120)!r} too")


class EncodedImage(NamedTuple):
    """An image as it is stored, with the name of its file."""

    content: bytes
    name: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as it is stored, with nothing decoded."""

    position: int
    """Index in the shard, from 0."""
    key: str
    image: bytes = b""
    image_name: str = ""
    caption: str = ""
    caption_note: str = ""
    """Why the caption differs from the stored value or is missing; see `pipelines.readers.captions`."""
    media: Mapping[str, EncodedImage] = field(default_factory=dict)
    """The images of `Columns.media`, by name."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The values of `Columns.fields`, by name; those that the sample does not have are left out."""
    problem: SampleError | None = None
    """Why this sample cannot be used, as found while reading."""


@dataclass(frozen=True, kw_only=True)
class ChunkFile:
    """One image of a folder chunk."""

    uri: str
    fingerprint: str
    """Changes if the image or a file beside it changes."""
    sidecars: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """URI of the image and of each file beside it -> its own fingerprint."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Up to N consecutive samples of one shard: the unit of scheduling, retry and resume."""

    name: str
    """Name of the published file, without its extension."""
    shard_uri: str
    shard_format: str
    shard_fingerprint: str = ""
    """Fingerprint that a shard of one file must still have after its last sample. Not checked if it is empty."""
    start: int
    stop: int
    """Positions [start, stop) in the shard."""
    seek_position: int = 0
    seek_bytes: int = 0
    """A sample at or before `start`, and where it begins: the byte offset of its first header in a tar or of its line
    in JSON lines, or its row number in a Parquet file with predicates."""
    gzip_index_uri: str = ""
    """URI of the index for seeking in a compressed tar; empty if there is none."""
    duplicates: tuple[int, ...] = ()
    """Positions whose key has occurred before in the shard."""
    damage: str = ""
    """Why the shard cannot be read to its end. The last position then stands for the unreadable rest."""
    damage_position: int = -1
    files: tuple[ChunkFile, ...] = ()
    """Only for folders: the images themselves."""
    only: tuple[int, ...] = ()
    """Positions to process; empty means all of them."""
    filtered: tuple[tuple[int, str], ...] = ()
    """(position, reason) of samples that a filter over the whole input has removed, such as near-duplicates."""
    base_data: str = ""
    base_errors: str = ""
    """With `only`: URIs of the published files that hold the other positions; empty if there is no such file."""

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions that this chunk must account for, ascending."""
        return self.only or tuple(range(self.start, self.stop))

    def to_json(self) -> str:
        """Return the chunk as one line of JSON, for a dataset row."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Chunk":
        """Invert `to_json`."""
        fields = json.loads(text)
        files = tuple(ChunkFile(**{**file, "sidecars": tuple(file["sidecars"])}) for file in fields.pop("files"))
        tuples: dict[str, Any] = {name: tuple(fields.pop(name)) for name in ("duplicates", "only")}
        filtered = tuple((at, reason) for at, reason in fields.pop("filtered"))
        return cls(**fields, **tuples, files=files, filtered=filtered)


_RANGE = r"(?P<start>\d{7,})-(?P<stop>\d{7,})"
_COUNTS = r"\.ok(?P<ok>\d+)\.bad(?P<bad>\d+)(?:\.wait(?P<wait>\d+))?(?:\.filtered(?P<filtered>\d+))?"


def _name_pattern(digits: int) -> str:
    shard, fingerprint, configuration = (
        f"(?P<{part}>[0-9a-f]{{{digits}}})" for part in ("shard", "fingerprint", "configuration")
    )
    return rf"(?P<name>.*-{shard}-{fingerprint}-{_RANGE}-{configuration})"


NAME = re.compile(_name_pattern(storage.HASH_DIGITS))
STEM = re.compile(NAME.pattern + rf"-(?P<outcome>[0-9a-f]{{{storage.HASH_DIGITS}}}){_COUNTS}")
OLD_NAME = re.compile(_name_pattern(storage.OLD_HASH_DIGITS))
OLD_MARK = re.compile(OLD_NAME.pattern + _COUNTS)


class ChunkName(NamedTuple):
    """The parts of a chunk's name."""

    text: str
    shard: str
    """Hash of the shard's URI."""
    fingerprint: str
    start: int
    stop: int
    configuration: str

    @classmethod
    def parse(cls, text: str) -> "ChunkName | None":
        """Parse a chunk's name; None for any other text."""
        match = NAME.fullmatch(text) or OLD_NAME.fullmatch(text)
        return None if match is None else cls.of(match)

    @classmethod
    def of(cls, match: re.Match[str]) -> "ChunkName":
        """Return the name that a pattern of this file has matched. All patterns have their groups in this order."""
        text, shard, fingerprint, start, stop, configuration = match.groups()[:6]
        return cls(text, shard, fingerprint, int(start), int(stop), configuration)

    @property
    def is_old(self) -> bool:
        """Whether the name is of version 0.1, with shorter hashes."""
        return len(self.shard) < storage.HASH_DIGITS


def chunk_name(stem: str, shard_uri: str, fingerprint: str, start: int, stop: int, configuration: str) -> str:
    """Return the name of a chunk, which depends on nothing but the arguments."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "_", stem)[:40] or "shard"
    return f"{safe}-{storage.short_hash(shard_uri)}-{fingerprint}-{start:07d}-{stop:07d}-{configuration}"


def version_stem(
    name: str,
    ok: int,
    failed: Iterable[int],
    waiting: Collection[int] = (),
    removals: int = 0,
    filtered: Collection[int] = (),
) -> str:
    """Return the stem of the files of a finished chunk, which depends on its outcome.

    Args:
        name: The chunk's name.
        ok: Number of samples in data/.
        failed: Positions in errors/.
        waiting: Those of the failed positions that wait for a later run.
        removals: How many versions with this outcome were removed before they had a mark. Their names are not reused.
        filtered: Those of the failed positions that a filter has removed.
    """
    positions = sorted(failed)
    outcomes = [f"{at}{_outcome(at, waiting, filtered)}" for at in positions]
    outcome = storage.short_hash(*outcomes, *([f"after {removals} removals"] if removals else []))
    counts = {"wait": len(waiting), "filtered": len(filtered)}
    special = "".join(f".{kind}{count}" for kind, count in counts.items() if count)
    return f"{name}-{outcome}.ok{ok}.bad{len(positions)}{special}"


def _outcome(at: int, waiting: Collection[int], filtered: Collection[int]) -> str:
    """Return what is special about a position in errors/; nothing for a sample that failed."""
    return " waits" if at in waiting else " filtered" if at in filtered else ""


def is_rows_file(uri: str, extension: str) -> bool:
    """Return whether a file in data/ has the name of a chunk's file, of this version or an earlier one."""
    stem, _, ending = uri.rsplit("/", 1)[-1].rpartition(".")
    return ending == extension and is_stem(stem)


def is_stem(text: str) -> bool:
    """Return whether a file name without its extension is that of a chunk, of this version or an earlier one."""
    return (STEM.fullmatch(text) or OLD_NAME.fullmatch(text)) is not None


def waiting_in(uri: str) -> int:
    """Return the number of waiting samples in the name of a chunk's file."""
    match = re.search(r"\.ok\d+\.bad\d+\.wait(\d+)(?:\.|$)", uri.rsplit("/", 1)[-1])
    return int(match[1]) if match else 0


def filtered_in(uri: str) -> int:
    """Return the number of filtered samples in the name of a chunk's file."""
    match = re.search(r"\.ok\d+\.bad\d+(?:\.wait\d+)?\.filtered(\d+)(?:\.|$)", uri.rsplit("/", 1)[-1])
    return int(match[1]) if match else 0
