"""The registry of shard formats. A new format is one file with a `ShardFormat` and one entry in FORMATS."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pipelines.readers.folder import FOLDER
from pipelines.readers.json_lines import JSON_LINES
from pipelines.readers.parquet_format import PARQUET
from pipelines.readers.shard_index import MeasuredShard, Shard
from pipelines.readers.tar_format import TAR
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.store import Store


class ShardFormat(Protocol):
    """What finding, planning and reading must know of a shard format."""

    names: tuple[str, ...]
    """The values of `Shard.format` that mean this format."""
    endings: Mapping[str, str]
    """End of a file's name in lower case -> `Shard.format`. Empty if no single file is a shard of this format."""
    describes: tuple[str, ...]
    """A file is a list of contents rather than data if a shard of one of these formats has the same name beside it."""
    yields_to_others: bool
    """A file is a list of contents rather than data if its input has images or shards of any other format."""
    has_keys: bool
    """Whether `--key-column` can name the keys."""
    has_named_image: bool
    """Whether `--image-column` can name the image of a sample."""
    has_predicates: bool
    """Whether `--where` can select samples."""
    is_readable_before_damage: bool
    """Whether the samples before the damage of a damaged shard can be read."""

    def measure(self, shard: Shard, columns: Columns, output: str, store: Store) -> MeasuredShard:
        """Count the samples of a shard and check its columns.

        Raises:
            MisfitError: the shard does not have the columns.
            Exception: the shard is damaged, in a way that `pipelines.storage.damage` recognizes.
        """
        ...

    def read(self, chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
        """Read the samples of a chunk in order.

        Raises:
            OSError: the storage failed, or the shard has changed since planning.
        """
        ...

    def check_media(self, shards: Sequence[Shard], options: Mapping[str, str], store: Store) -> None:
        """Look for further images in the first shards of this format. Raises SettingError if they are missing.

        Args:
            shards: All shards of this format.
            options: Column or extension of each further image -> the option that named it, for messages.
            store: Where the shards are.
        """
        ...

    def check_image(self, shards: Sequence[Shard], wanted: str, store: Store) -> None:
        """Look for the image that `--image-column` names. Raises SettingError if it is missing."""
        ...

    def check_caption(self, shards: Sequence[Shard], wanted: str, store: Store, option: str) -> bool:
        """Look for the text that an option names, such as `--caption-column`. Raises SettingError if it is missing.

        Returns:
            True if it was found, so that no other format needs to be checked.
        """
        ...


FORMATS: tuple[ShardFormat, ...] = (FOLDER, PARQUET, TAR, JSON_LINES)
"""In the order in which named columns are checked."""
_BY_NAME: Mapping[str, ShardFormat] = {name: each for each in FORMATS for name in each.names}
_BY_ENDING: Mapping[str, str] = {ending: name for each in FORMATS for ending, name in each.endings.items()}


def format_called(name: str) -> ShardFormat:
    """Return the format with this `Shard.format`."""
    return _BY_NAME[name]


def format_name(uri: str) -> str | None:
    """Return the `Shard.format` of a file, by its ending; None if the file is no shard by itself."""
    return None if (ending := _ending(uri)) is None else _BY_ENDING[ending]


def without_ending(uri: str) -> str:
    """Return the URI of a shard without the ending that shows its format."""
    return uri[: -len(_ending(uri) or "") or None]


def _ending(uri: str) -> str | None:
    name = uri.rsplit("/", 1)[-1].lower()
    return next((ending for ending in _BY_ENDING if name.endswith(ending)), None)
