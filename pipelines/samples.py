"""An input sample, and the chunk of consecutive samples that is processed as a unit.

Tested in tests/pipelines/readers/test_chunks.py.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipelines.errors import SampleError
from pipelines.texts import clipped


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
        return cls(**fields, **tuples, files=files)
