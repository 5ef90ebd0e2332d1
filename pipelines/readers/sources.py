"""Where a job's samples come from: finding shards, counting their samples for the plan, reading those of a chunk."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipelines import storage
from pipelines.damage import is_damage
from pipelines.errors import MisfitError, SettingError, ShardChangedError
from pipelines.readers import measure, tar_samples
from pipelines.readers.captions import decode_text, has_field
from pipelines.readers.chunks import read_chunk
from pipelines.readers.folder import MAX_TEXT_BYTES
from pipelines.readers.measure import PLANNING_THREADS
from pipelines.readers.parquet import check_image_columns
from pipelines.readers.shard_index import INDEX_STRIDE, Measured
from pipelines.readers.shards import SIDECAR_EXTENSIONS, Shard, Tell, find_shards, format_of
from pipelines.readers.tar import Member, is_compressed, read_tar
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.store import FILES, Store, map_concurrently
from pipelines.texts import clipped

SAMPLES_LOOKED_AT = 16
"""Of a tar, for a member that a setting names; of a folder, the JSON files."""
TARS_LOOKED_AT = 4
"""For an image or a caption that a setting names, which single tars may lack."""


class Source(Protocol):
    """Light and picklable: finding and counting happen where the command runs, reading in the workers."""

    def find(self, inputs: Sequence[str], output: str, tell: Tell | None = None) -> list[Shard]:
        """The shards of the inputs, without what lies in the output; `tell` gets a line about what else is left out.

        Raises:
            SettingError: an input cannot be read.
        """
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

    def find(self, inputs: Sequence[str], output: str, tell: Tell | None = None) -> list[Shard]:
        """Every shard of the inputs; options that none of them has a use for are told too."""
        shards = find_shards(inputs, exclude=output, store=self.store, tell=tell)
        for line in self._without_effect(shards) if tell is not None else ():
            tell(line)
        return shards

    def _without_effect(self, shards: Sequence[Shard]) -> Iterator[str]:
        """Lines about columns that are named for formats without them."""
        key, formats = self.columns.key, {shard.format.removesuffix(".gz") for shard in shards}
        if key is not None and formats <= {"tar", "folder"}:
            yield f"--key-column {key!r} has no effect: in tars and folders the names of files are the keys"
        if self._named_image is not None and formats == {"folder"}:
            yield f"--image-column {self._named_image!r} has no effect: in folders every file is an image of its own"

    @property
    def _named_image(self) -> str | None:
        """What `--image-column` names; where a condition is the image, another option has named it."""
        return None if self.columns.image in self.columns.media else self.columns.image

    def measure(self, shards: list[Shard], output: str, limit: int | None) -> list[Measured]:
        """Check that the columns are there, then count."""
        if self.columns.media:
            check_media(shards, self.media_options, self.store)
        if self._named_image is not None:
            check_image(shards, self._named_image, self.store)
        if self.columns.caption is not None:
            check_caption(shards, self.columns.caption, self.store)
        return measure.measure(shards, self.columns, output, limit, self.store)

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's samples as stored."""
        return read_chunk(chunk, self.columns, self.store)


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

    def find(self, inputs: Sequence[str], output: str, tell: Tell | None = None) -> list[Shard]:
        """The shards of the source."""
        shards = self.source.find(inputs, output, tell)
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
            strides = -(-index.samples * self.copies // INDEX_STRIDE) if index.seek_bytes else 0
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
        stride = chunk.seek_position // INDEX_STRIDE
        return stride // self.copies * INDEX_STRIDE


def check_media(shards: Sequence[Shard], options: Mapping[str, str], store: Store = FILES) -> None:
    """Refuse columns that no Parquet file has by its schema, or not one of the first samples of the first tar.

    A Parquet file without them beside others that have them is no fault of the setting: it becomes an error row.

    options: column or extension -> the option that named it.

    Raises:
        SettingError: with what is there instead.
    """
    _refuse_folders(shards, next(iter(options.values())))
    _check_parquets([shard.uri for shard in shards if shard.format == "parquet"], options, store)
    for shard in shards:
        if shard.format.startswith("tar") and (there := _extensions(shard, store)):
            return _check_extensions(there, shard, options)


def _refuse_folders(shards: Sequence[Shard], option: str) -> None:
    folder = next((shard.uri for shard in shards if shard.format == "folder"), None)
    if folder is not None:
        raise SettingError(f"{option} needs tars or Parquet files; {folder} is a folder of loose pictures.")


def _check_parquets(uris: Sequence[str], options: Mapping[str, str], store: Store) -> None:
    """Raises the misfit of the first file, where one of the first files has none of them."""
    first: MisfitError | None = None
    for start in range(0, min(len(uris), measure.MISFITS_BELIEVED), PLANNING_THREADS):
        some = uris[start : start + PLANNING_THREADS]
        found = map_concurrently(store, lambda uri: _misfit(uri, options, store), some, PLANNING_THREADS)
        for error in found:
            if error is None:
                return
            first = first or error
    if first is not None:
        raise first


def _misfit(uri: str, options: Mapping[str, str], store: Store) -> MisfitError | None:
    """Why a file does not have the columns; None where it has, or is damaged, which becomes an error row."""
    try:
        check_image_columns(uri, list(options), store)
    except MisfitError as error:
        message = str(error)
        for name, option in options.items():
            message = message.replace(f"--image-column {name!r}", option)
        return MisfitError(message)
    except Exception as error:
        if not is_damage(error):
            raise
    return None


def check_image(shards: Sequence[Shard], wanted: str, store: Store = FILES) -> None:
    """Refuse an image that none of the first samples of the first tars has. Raises SettingError."""
    there: set[str] = set()
    tars = [shard for shard in shards if shard.format.startswith("tar")]
    for shard in tars[:TARS_LOOKED_AT]:
        there |= _extensions(shard, store)
        if any(f".{extension}".endswith(f".{wanted.lower().lstrip('.')}") for extension in there):
            return
    if there:
        _check_extensions(there, tars[0], {wanted: f"--image-column {wanted!r}"})


def check_caption(shards: Sequence[Shard], wanted: str, store: Store = FILES) -> None:
    """Refuse a caption that none of the first samples of tars or folders has, neither as a file nor as a JSON field.

    Raises:
        SettingError: with what is there instead.
    """
    seen: list[list[Member]] = []
    tars = [shard for shard in shards if shard.format.startswith("tar")]
    for shard in tars[:TARS_LOOKED_AT]:
        seen += _first_samples(shard, store)
        if any(tar_samples.has_caption(members, wanted) for members in seen):
            return
    if seen:
        there = sorted({f".{member.extension}" for members in seen for member in members})
        raise SettingError(
            f"--caption-column {wanted!r}: the first samples of {tars[0].uri} have no file .{wanted.lstrip('.')}, nor "
            f"such a field in a .json file. Their members: {clipped(', '.join(there))}. Correct the name."
        )
    folders = [shard for shard in shards if shard.format == "folder"]
    if folders and not _beside_images(folders, wanted, store):
        raise SettingError(
            f"--caption-column {wanted!r}: the images of {folders[0].uri} have no caption of that name. Rule: the "
            f"extension of files beside images ({', '.join(SIDECAR_EXTENSIONS)}), or a field of their .json files. "
            "Correct the name, or leave it out."
        )


def _beside_images(folders: Sequence[Shard], wanted: str, store: Store) -> bool:
    """Whether a folder has texts of that extension, or that field in one of the first JSON files."""
    texts = [file.uri for folder in folders for file in folder.files if format_of(file.uri) is None]
    if any(uri.lower().endswith(f".{wanted.lower().lstrip('.')}") for uri in texts):
        return True
    fields = [uri for uri in texts if uri.lower().endswith(".json")]
    return any(_has_field(uri, wanted, store) for uri in fields[:SAMPLES_LOOKED_AT])


def _has_field(uri: str, wanted: str, store: Store) -> bool:
    try:
        return has_field(decode_text(store.read_bytes(uri, MAX_TEXT_BYTES)).text, wanted)
    except (FileNotFoundError, storage.TooLargeError):
        return False


def _first_samples(shard: Shard, store: Store) -> list[list[Member]]:
    """Members of a tar's first samples, JSON with its content; none where they are damaged, which is an error row."""
    found: list[list[Member]] = []
    try:
        compressed = is_compressed(shard.uri, store)
        samples = read_tar(
            shard.uri, compressed, 0, SAMPLES_LOOKED_AT, is_wanted=lambda name: name.endswith("json"), store=store
        )
        found.extend(members for _, _, members in samples)
    except ShardChangedError as error:  # it has fewer samples
        return [] if error.__cause__ is not None else found
    return found


def _extensions(shard: Shard, store: Store) -> set[str]:
    """Of the members of a tar's first samples."""
    return {member.extension for members in _first_samples(shard, store) for member in members}


def _check_extensions(there: set[str], shard: Shard, options: Mapping[str, str]) -> None:
    for name, option in options.items():
        ending = f".{name.lower().lstrip('.')}"
        if not any(f".{extension}".endswith(ending) for extension in there):
            raise SettingError(
                f"{option}: no .{name.lstrip('.')} in the first samples of {shard.uri}. Their members: "
                f"{clipped(', '.join(sorted('.' + extension for extension in there)))}."
            )
