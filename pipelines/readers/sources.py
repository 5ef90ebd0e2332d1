"""Sources of samples: they find shards, measure them for planning, and read the samples of a chunk."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.readers import measure
from pipelines.readers.chunks import read_chunk
from pipelines.readers.folder import refuse_folders
from pipelines.readers.formats import FORMATS, format_called
from pipelines.readers.shard_index import INDEX_STRIDE, MeasuredShard, Shard
from pipelines.readers.shards import Tell, find_shards
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.store import FILES, Store


class Source(Protocol):
    """Where the samples of a job come from. Light and picklable.

    Shards are found and measured where the command runs; samples are read in the workers.
    """

    def find(self, inputs: Sequence[str], output: str, tell: Tell | None = None) -> list[Shard]:
        """Find the shards of the inputs, without the content of the output.

        Args:
            inputs: Paths, URIs and patterns.
            output: Root of the job's output.
            tell: Receives lines about what else is left out.

        Raises:
            SettingError: an input cannot be read.
        """
        ...

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[MeasuredShard]:
        """Return what planning must know of the shards, up to `limit` samples. Raises SettingError."""
        ...

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """Read the samples at the chunk's positions, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageShards:
    """Shards of images, of every format in `pipelines.readers.formats`."""

    columns: Columns
    media_options: Mapping[str, str] = field(default_factory=dict)
    """Each of `columns.media` -> the option that named it, for messages."""
    field_options: Mapping[str, str] = field(default_factory=dict)
    """Each of `columns.fields` -> the option that named it, for messages."""
    store: Store = FILES

    def find(self, inputs: Sequence[str], output: str, tell: Tell | None = None) -> list[Shard]:
        """Find every shard of the inputs. `tell` also receives lines about options without effect."""
        shards = find_shards(inputs, exclude=output, store=self.store, tell=tell)
        if tell is not None:
            for line in self._without_effect(shards):
                tell(line)
        return shards

    def _without_effect(self, shards: Sequence[Shard]) -> Iterator[str]:
        """Yield a line for each named column that none of the formats has."""
        key, formats = self.columns.key, [format_called(name) for name in {shard.format for shard in shards}]
        if key is not None and not any(each.has_keys for each in formats):
            yield f"--key-column {key!r} has no effect: in tars and folders the names of files are the keys"
        if self._named_image is not None and formats and not any(each.has_named_image for each in formats):
            yield f"--image-column {self._named_image!r} has no effect: in folders every file is an image of its own"

    @property
    def _named_image(self) -> str | None:
        """The value of `--image-column`. A condition that is used as the image was named by another option."""
        return None if self.columns.image in self.columns.media else self.columns.image

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[MeasuredShard]:
        """Check that the named columns exist, then count the samples."""
        if self.columns.media:
            check_media(shards, self.media_options, self.store)
        if self._named_image is not None:
            check_image(shards, self._named_image, self.store)
        if self.columns.caption is not None:
            check_caption(shards, self.columns.caption, self.store)
        for name, option in self.field_options.items():
            check_caption(shards, name, self.store, option)
        return measure.measure(shards, self.columns, output, limit, self.store)

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """Read the chunk's samples as stored."""
        return read_chunk(chunk, self.columns, self.store)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Every sample of a source several times, with keys KEY#0, KEY#1, ...: position p is sample p // copies.

    Each copy is thus a sample of its own for chunks, marks, errors and retries. Folders are not supported, because
    their chunks are lists of files rather than ranges of positions.
    """

    source: Source
    copies: int
    option: str
    """The option that asked for the copies, for messages."""

    def find(self, inputs: Sequence[str], output: str, tell: Tell | None = None) -> list[Shard]:
        """Find the shards of the source. Raises SettingError for folders."""
        shards = self.source.find(inputs, output, tell)
        refuse_folders(shards, f"{self.option} {self.copies}")
        return shards

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[MeasuredShard]:
        """Measure the shards; `limit` counts samples of the source, not copies."""
        return [self._repeated(found) for found in self.source.measure(shards, output, limit)]

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """Yield the chunk's copies, reading each sample once."""
        wanted = set(chunk.positions)
        for sample in self.source.read(self._inner(chunk)):
            for copy in range(self.copies):
                position = sample.position * self.copies + copy
                if position in wanted:
                    yield dataclasses.replace(sample, position=position, key=f"{sample.key}#{copy}")

    def _repeated(self, found: MeasuredShard) -> MeasuredShard:
        index = found.index
        if index is not None:
            duplicates = tuple(at * self.copies + copy for at in index.duplicates for copy in range(self.copies))
            strides = -(-index.samples * self.copies // INDEX_STRIDE) if index.seek_bytes else 0
            seeks = tuple(index.seek_bytes[stride // self.copies] for stride in range(strides))
            index = dataclasses.replace(
                index, samples=index.samples * self.copies, seek_bytes=seeks, duplicates=duplicates
            )
        samples = self._copied(found.samples, is_rest_in=bool(found.damage) and found.samples == found.total)
        total = self._copied(found.total, is_rest_in=bool(found.damage))
        return dataclasses.replace(found, samples=samples, total=total, index=index)

    def _copied(self, samples: int, is_rest_in: bool) -> int:
        """Return the number of copies; the unreadable rest of a shard stays one sample."""
        return (samples - is_rest_in) * self.copies + is_rest_in

    def _inner(self, chunk: Chunk) -> Chunk:
        """Return the chunk of the source that holds this chunk's samples."""
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
        stride = chunk.seek_position // INDEX_STRIDE
        return stride // self.copies * INDEX_STRIDE


def check_media(shards: Sequence[Shard], options: Mapping[str, str], store: Store = FILES) -> None:
    """Refuse columns that no Parquet file has, or members that none of the first samples of the first tar has.

    A Parquet file without them beside others that have them does not make the setting wrong: it becomes an error row.

    Args:
        shards: All shards of the input.
        options: Column or extension -> the option that named it.
        store: Where the shards are.

    Raises:
        SettingError: with what is there instead.
    """
    for form in FORMATS:
        form.check_media([shard for shard in shards if shard.format in form.names], options, store)


def check_image(shards: Sequence[Shard], wanted: str, store: Store = FILES) -> None:
    """Refuse an image that none of the first samples of the first tars has. Raises SettingError."""
    for form in FORMATS:
        form.check_image([shard for shard in shards if shard.format in form.names], wanted, store)


def check_caption(shards: Sequence[Shard], wanted: str, store: Store = FILES, option: str = "--caption-column") -> None:
    """Refuse a text that none of the first samples of tars has, nor, if there are no tars, of folders.

    Raises:
        SettingError: with what is there instead.
    """
    for form in reversed(FORMATS):  # folders last
        if form.check_caption([shard for shard in shards if shard.format in form.names], wanted, store, option):
            return
