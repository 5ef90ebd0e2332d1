"""One input sample, and the chunk of consecutive samples that travels as a unit."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines.errors import SampleError
from pipelines.texts import clipped


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which field of a sample is what. None: found by the rule in the field's comment."""

    image: str | None = None
    """Parquet column, JSON field (both `a.b` where nested) or tar member extension. None: `image`, or the only column
    that can be one; in tars the first of the known image extensions."""
    key: str | None = None
    """Parquet column of unique names. None: `key` or `__key__` if there, else shard name and row number."""
    caption: str | None = None
    """Parquet column, tar member extension or JSON field. None: `caption`, `text` or `prompt`, or the `.txt` member.
    What counts as a caption, see `pipelines.readers.captions`."""
    media: tuple[str, ...] = ()
    """Parquet columns or tar member extensions of further pictures, such as conditions and masks."""
    where: tuple[str, ...] = ()
    """Conditions such as `width>=512` on Parquet columns: rows that do not meet all of them are no samples."""


def repeated_key(key: str) -> SampleError:
    """The problem of the second sample of a key within a shard."""
    return SampleError("read", f"duplicate key: an earlier sample of this shard is called {clipped(key, 120)!r} too")


class Stored(NamedTuple):
    """A picture as it is stored, with its file's name."""

    content: bytes
    name: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as stored: nothing is decoded yet."""

    position: int
    """Index in the shard, from 0."""
    key: str
    image: bytes = b""
    image_name: str = ""
    caption: str = ""
    caption_note: str = ""
    """Why the caption is not what is stored, or why there is none though something is: `pipelines.readers.captions`."""
    media: Mapping[str, Stored] = field(default_factory=dict)
    """The pictures of `Columns.media`, by name."""
    problem: SampleError | None = None
    """Why this sample cannot be used, found while reading."""


@dataclass(frozen=True, kw_only=True)
class ChunkFile:
    """One image of a folder chunk."""

    uri: str
    fingerprint: str
    """Changes when the image or a file beside it changes."""
    sidecars: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """URI of the image and of each file beside it -> its own fingerprint."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Up to N consecutive samples of one shard: the unit of scheduling, retry and resume."""

    name: str
    """Of the published file, without extension."""
    shard_uri: str
    shard_format: str
    shard_fingerprint: str = ""
    """Of a shard that is one file: what it must still be when its last sample has been read. Empty: not checked."""
    start: int
    stop: int
    """Positions [start, stop) in the shard."""
    seek_position: int = 0
    seek_bytes: int = 0
    """A sample at or before `start`, and where it begins: the byte offset of its first header in a tar, of its line in
    JSON lines; in Parquet with conditions its row."""
    gzip_points: str = ""
    """URI of the points where a compressed tar can be entered; empty where it cannot."""
    duplicates: tuple[int, ...] = ()
    """Positions whose key came before in the shard."""
    damage: str = ""
    """Why the shard cannot be read to its end; the last position then stands for the unreadable rest."""
    damage_position: int = -1
    files: tuple[ChunkFile, ...] = ()
    """Folders: the images themselves."""
    only: tuple[int, ...] = ()
    """Positions to process; empty means all of them."""
    base_data: str = ""
    base_errors: str = ""
    """With `only`: URIs of the published files that hold the other positions; empty where there is no such file."""

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions this chunk must account for, ascending."""
        return self.only or tuple(range(self.start, self.stop))

    def to_json(self) -> str:
        """The chunk as one line, to travel in a dataset row."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Chunk":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        files = tuple(ChunkFile(**{**file, "sidecars": tuple(file["sidecars"])}) for file in fields.pop("files"))
        tuples = {name: tuple(fields.pop(name)) for name in ("duplicates", "only")}
        return cls(**fields, **tuples, files=files)
