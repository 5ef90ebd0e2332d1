"""What planning must know of a shard: how many samples it has, and where a reader can enter it."""

from dataclasses import dataclass

from pipelines import storage
from pipelines.errors import MisfitError
from pipelines.readers.shards import Shard

INDEX_STRIDE = 32


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
    ignored: int = 0
    """Files that no sample uses, since they are not called KEY.EXTENSION, or that name is another image's."""
    ignored_name: str = ""
    """One of them."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A shard and what planning must know of it."""

    shard: Shard
    samples: int
    """Positions that this run accounts for: the first ones of the shard."""
    total: int
    """Positions of the whole shard; a damaged one has one more, the last, for its unreadable rest."""
    index: TarIndex | None = None
    damage: str = ""
    misfit: MisfitError | None = None
    """Why a shard that is sound does not go with the settings; then it is damage too."""

    @property
    def is_whole(self) -> bool:
        """No limit leaves out a part of the shard."""
        return self.samples >= self.total


def index_uri(output: str, shard_uri: str, fingerprint: str) -> str:
    """Where planning keeps what it learned about a tar."""
    return storage.join(output, "_chunks", "index", f"{storage.short_hash(shard_uri)}-{fingerprint}.json")
