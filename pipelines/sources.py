"""Where a job's samples come from: finding shards, counting their samples for the plan, reading those of a chunk."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipelines import measure, parquet_shards, readers, tar_shards
from pipelines.damage import is_damage
from pipelines.errors import SettingError, ShardChangedError
from pipelines.inputs import Shard, find_shards
from pipelines.measure import PLANNING_THREADS, Measured
from pipelines.samples import Chunk, Columns, Sample
from pipelines.store import FILES, Store, map_concurrently

SAMPLES_LOOKED_AT = 16
"""Of a tar, for a member that a setting names."""


class Source(Protocol):
    """Light and picklable: finding and counting happen where the command runs, reading in the workers."""

    def find(self, inputs: Sequence[str], output: str) -> list[Shard]:
        """The shards of the inputs, without what lies in the output. Raises SettingError."""
        ...

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[Measured]:
        """What planning must know of the shards, up to `limit` samples. Raises SettingError."""
        ...

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The samples at the chunk's positions, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class PictureShards:
    """Tars, Parquet files and folders of pictures."""

    columns: Columns
    media_options: Mapping[str, str] = field(default_factory=dict)
    """`columns.media` -> the option that named it, for messages."""
    store: Store = FILES

    def find(self, inputs: Sequence[str], output: str) -> list[Shard]:
        """Every shard of the inputs."""
        return find_shards(inputs, exclude=output, store=self.store)

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[Measured]:
        """Check that the columns are there, then count."""
        if self.columns.media:
            check_media(shards, self.media_options, self.store)
        return measure.measure(shards, self.columns, output, limit, self.store)

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's samples as stored."""
        return readers.read_chunk(chunk, self.columns, self.store)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Every sample of a source several times, with keys KEY#0, KEY#1, ...: position p is sample p // copies.

    So each copy is a sample of its own to chunks, marks, errors and retries. Not for folders: their chunks are lists of
    files, not ranges.
    """

    source: Source
    copies: int
    option: str
    """What asked for the copies, for messages."""

    def find(self, inputs: Sequence[str], output: str) -> list[Shard]:
        """The shards of the source."""
        shards = self.source.find(inputs, output)
        _refuse_folders(shards, f"{self.option} {self.copies}")
        return shards

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[Measured]:
        """`limit` counts the source's samples."""
        return [self._repeated(found) for found in self.source.measure(shards, output, limit)]

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's copies, each sample being read once."""
        wanted = set(chunk.positions)
        for sample in self.source.read(self._inner(chunk)):
            for copy in range(self.copies):
                position = sample.position * self.copies + copy
                if position in wanted:
                    yield dataclasses.replace(sample, position=position, key=f"{sample.key}#{copy}")

    def _repeated(self, found: Measured) -> Measured:
        index = found.index
        if index is not None:
            duplicates = tuple(at * self.copies + copy for at in index.duplicates for copy in range(self.copies))
            strides = -(-index.samples * self.copies // tar_shards.INDEX_STRIDE) if index.seek_bytes else 0
            seeks = tuple(index.seek_bytes[stride // self.copies] for stride in range(strides))
            index = dataclasses.replace(
                index, samples=index.samples * self.copies, seek_bytes=seeks, duplicates=duplicates
            )
        samples = self._copied(found.samples, is_rest_in=bool(found.damage) and found.samples == found.total)
        total = self._copied(found.total, is_rest_in=bool(found.damage))
        return dataclasses.replace(found, samples=samples, total=total, index=index)

    def _copied(self, samples: int, is_rest_in: bool) -> int:
        """The unreadable rest of a shard is one sample still."""
        return (samples - is_rest_in) * self.copies + is_rest_in

    def _inner(self, chunk: Chunk) -> Chunk:
        """The chunk of the source that holds this chunk's samples."""
        stop = -(-chunk.stop // self.copies)
        return dataclasses.replace(
            chunk,
            start=chunk.start // self.copies,
            stop=stop,
            seek_position=self._seek_position(chunk),
            duplicates=tuple(sorted({at // self.copies for at in chunk.duplicates})),
            damage_position=stop - 1 if chunk.damage else -1,
            only=tuple(sorted({at // self.copies for at in chunk.only})),
        )

    def _seek_position(self, chunk: Chunk) -> int:
        stride = chunk.seek_position // tar_shards.INDEX_STRIDE
        return stride // self.copies * tar_shards.INDEX_STRIDE


def check_media(shards: Sequence[Shard], options: Mapping[str, str], store: Store = FILES) -> None:
    """Refuse columns that are not there: by the schema of every Parquet file, by the first samples of the first tar.

    options: column or extension -> the option that named it.

    Raises:
        SettingError: with what is there instead.
    """
    _refuse_folders(shards, next(iter(options.values())))
    parquets = [shard.uri for shard in shards if shard.format == "parquet"]
    for _ in map_concurrently(store, lambda uri: _check_parquet(uri, options, store), parquets, PLANNING_THREADS):
        pass
    for shard in shards:
        if shard.format.startswith("tar") and (there := _extensions(shard, store)):
            return _check_extensions(there, shard, options)


def _refuse_folders(shards: Sequence[Shard], option: str) -> None:
    folder = next((shard.uri for shard in shards if shard.format == "folder"), None)
    if folder is not None:
        raise SettingError(f"{option} needs tars or Parquet files; {folder} is a folder of loose pictures.")


def _check_parquet(uri: str, options: Mapping[str, str], store: Store) -> None:
    try:
        parquet_shards.check_image_columns(uri, list(options), store)
    except SettingError as error:
        message = str(error)
        for name, option in options.items():
            message = message.replace(f"--image-column {name!r}", option)
        raise SettingError(message) from error
    except Exception as error:
        if not is_damage(error):
            raise  # damage becomes an error row


def _extensions(shard: Shard, store: Store) -> set[str]:
    """Of the members of a tar's first samples; none where they are damaged, which becomes an error row."""
    there: set[str] = set()
    try:
        compressed = tar_shards.is_compressed(shard.uri, store)
        samples = tar_shards.read_tar(shard.uri, compressed, 0, SAMPLES_LOOKED_AT, store=store)
        for _, _, members in samples:
            there |= {member.extension for member in members}
    except ShardChangedError as error:  # it has fewer samples
        return set() if error.__cause__ is not None else there
    return there


def _check_extensions(there: set[str], shard: Shard, options: Mapping[str, str]) -> None:
    for name, option in options.items():
        if name.lower().lstrip(".") not in there:
            raise SettingError(
                f"{option}: no .{name.lstrip('.')} in the first samples of {shard.uri}. Their members: "
                f"{', '.join(sorted('.' + extension for extension in there))}."
            )
