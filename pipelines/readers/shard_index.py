"""A shard, and what planning must know of it: the number of its samples and where a reader can enter it.

Tested in tests/pipelines/readers/test_measure.py.
"""

from dataclasses import dataclass

from pipelines import storage
from pipelines.errors import MisfitError

INDEX_STRIDE = 32
FOLDER_FORMAT = "folder"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One input file, or the loose images of one folder."""

    uri: str
    """The same URI whichever way leads to the shard: on local disks with links resolved."""
    format: str
    """One of the names in `pipelines.readers.formats`, or of a format of prompts in `pipelines.readers.prompts`."""
    size_bytes: int
    fingerprint: str
    modified_s: float | None = None
    """Time of the last write in seconds since 1970 (of the newest file of a folder); None if it is unknown."""
    former_uri: str = ""
    """The spelling that version 0.1 would have given `uri`; empty if it is the same."""
    files: tuple[storage.FileInfo, ...] = ()
    """Only for folders: the images and the text files beside them."""

    @property
    def stem(self) -> str:
        """The file's name without folders and extensions."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1].split(".", 1)[0]

    @property
    def is_folder(self) -> bool:
        """Whether its chunks are lists of files rather than ranges of positions."""
        return self.format == FOLDER_FORMAT


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The number of samples of a shard, and where a reader can enter it."""

    samples: int
    seek_bytes: tuple[int, ...]
    """Where every INDEX_STRIDE-th sample begins, in the unit of `Chunk.seek_bytes`. For compressed tars this is an
    offset in the decompressed data. Empty if the shard can only be read from its start."""
    duplicates: tuple[int, ...] = ()
    """Positions whose key belongs to an earlier sample of the shard too."""
    damage: str = ""
    """Why the rest cannot be read; empty if the shard ends as it should."""
    gzip_index_uri: str = ""
    """URI of the index that lets a reader enter a compressed tar."""
    ignored: int = 0
    """Number of files that no sample uses: their name is not KEY.EXTENSION, or it makes them part of another image."""
    ignored_name: str = ""
    """The name of one of them."""


@dataclass(frozen=True, kw_only=True)
class MeasuredShard:
    """A shard and what planning must know of it."""

    shard: Shard
    samples: int
    """Number of positions that this run accounts for: the first ones of the shard."""
    total: int
    """Number of positions of the whole shard. In a damaged shard one more, the last, stands for its unreadable rest."""
    index: ShardIndex | None = None
    damage: str = ""
    misfit: MisfitError | None = None
    """Why an undamaged shard does not match the settings. Such a shard has a `damage` too."""

    @classmethod
    def of(cls, shard: Shard, index: ShardIndex | None, samples: int, damage: str = "") -> "MeasuredShard":
        """Describe a shard with this number of readable samples, without a limit."""
        total = samples + bool(damage)
        return cls(shard=shard, samples=total, total=total, index=index, damage=damage)

    @property
    def is_whole(self) -> bool:
        """Whether no limit leaves out a part of the shard."""
        return self.samples >= self.total


def index_uri(output: str, shard_uri: str, fingerprint: str) -> str:
    """Return where planning keeps the index of a tar."""
    return storage.join(output, "_chunks", "index", f"{storage.short_hash(shard_uri)}-{fingerprint}.json")
