"""Datasets with one map for every key, in Parquet files or tars: predictions, or the truth they are compared with.

Tested in tests/pipelines/evaluation/test_join.py and tests/jobs/test_evaluate_maps.py.
"""

import io
import json
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.errors import SampleError, SettingError, clipped
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.readers.fields import place_of
from pipelines.readers.parquet import image_in
from pipelines.readers.parquet_columns import check_image_type, check_single, listed
from pipelines.readers.parquet_files import BadRow, OpenParquet, open_parquet, read_row_range
from pipelines.readers.row_samples import named
from pipelines.readers.shard_index import Shard
from pipelines.readers.shards import find_shards
from pipelines.readers.tar import Member, index_tar, read_tar
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.store import FILES
from unicon.conditions import CONDITIONS

TARS = ("tar", "tar.gz")
CAPTION, CAPTION_MEMBER = "caption", "txt"
"""The column with the caption, and the member of tars without such a field."""
IMAGE = "image"
"""The column with the image; in tars the member without a column in its name."""
CONFIDENCE = "confidence"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample of a dataset."""

    key: str
    content: bytes
    """The map as it is stored."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of the wanted columns that the dataset has."""
    image: bytes = b""
    """The image that the map belongs to; empty if it is unknown or not wanted."""


@dataclass(frozen=True, kw_only=True)
class MapSet:
    """A dataset with one map for every key. The files are read one by one, each more than once if need be."""

    option: str
    """The option that named the dataset, for messages."""
    uri: str
    condition: str
    column: str
    """Parquet column of the maps. In tars, the extension of the member: `depth` also stands for `depth.png`."""
    members: tuple[str, ...] = ()
    """Other extensions of the member in tars."""
    labels: tuple[str, ...] = ()
    """Further columns, which the dataset may have or not: Parquet columns, or fields of the .json member."""
    has_images: bool = False
    """Whether the images are wanted."""
    formats: tuple[str, ...] = (*TARS, "parquet")
    kind_of_files: str = "Parquet files or tars with maps"
    """What the files are, for messages."""

    def shards(self) -> list[Shard]:
        """Find the files. Raises SettingError if there are none."""
        return find_files(self.uri, self.option, self.formats, self.kind_of_files)

    def keys(self, shard: Shard) -> Iterator[str]:
        """Yield the keys of a file, without reading its maps.

        Raises:
            SettingError: The file is damaged, lacks a column, or has a row without a key.
        """
        if shard.format in TARS:
            yield from (key for key, _ in self._tar_samples(shard, ("json",)))
            return
        with self.opened(shard.uri) as parquet:
            for _, row in read_row_range(parquet, ["key"], None, [], 0, parquet.rows):
                yield key_of(row)

    def records(self, shard: Shard, wanted: Container[str] | None = None) -> Iterator[Record]:
        """Yield the samples of a file; of them, only those with wanted keys.

        Raises:
            SettingError: As `keys`, or a sample has no map.
        """
        if shard.format in TARS:
            yield from self._tar_records(shard, wanted)
            return
        with self.opened(shard.uri) as parquet:
            yield from self._rows(parquet, shard.uri, wanted)

    def first_values(self, shard: Shard, columns: tuple[str, ...]) -> dict[str, Any]:
        """Return the values of those of the columns that a Parquet file has, of its first row."""
        if shard.format in TARS:
            return {}
        with self.opened(shard.uri) as parquet:
            present = [name for name in columns if name in parquet.schema.names]
            rows = read_row_range(parquet, present, None, [], 0, min(1, parquet.rows)) if present else iter(())
            return next((values_of(row) for _, row in rows), {})

    @contextmanager
    def opened(self, uri: str) -> Iterator[OpenParquet]:
        """Open a Parquet file; what is wrong with it is raised as a SettingError, also in the body."""
        try:
            with open_parquet(uri, FILES) as parquet:
                with parquet.verifying_schema():
                    self._check_columns(parquet.schema, uri)
                yield parquet
        except SampleError as error:
            raise SettingError(
                f"{self.option}: {uri}: {error.reason}. Create its rows again, or remove the file."
            ) from error
        except Exception as error:
            if not is_damage(error):
                raise
            raise SettingError(
                f"{self.option}: {uri} cannot be read: {reason_of(error)}. Create it again, or remove it."
            ) from error

    def _check_columns(self, schema: pa.Schema, uri: str) -> None:
        for name in ("key", self.column):
            check_single(schema, self.option, name, uri)
        if not {"key", self.column} <= {*schema.names}:
            raise SettingError(
                f"{self.option}: files must have the columns key and {self.column}; {uri} has {listed(schema.names)}. "
                f"Give the output of an estimation of {self.condition}, or the name of the column "
                f"({self.option.removesuffix('s')}-column)."
            )
        check_image_type(schema, f"{self.option}: column", self.column, uri)

    def _rows(self, parquet: OpenParquet, uri: str, wanted: Container[str] | None) -> Iterator[Record]:
        images = (IMAGE,) if self.has_images and self.column != IMAGE else ()
        columns = dict.fromkeys(("key", self.column, CONFIDENCE, *self.labels, *images))
        names, folder = [name for name in columns if name in parquet.schema.names], place_of(uri)[0]
        for _, row in read_row_range(parquet, names, None, [], 0, parquet.rows):
            key = key_of(row)
            if wanted is not None and key not in wanted:
                continue
            values = values_of(row)
            try:
                content = image_in(values[self.column], folder, self.column).content
            except SampleError as error:
                raise SampleError("read", f"row {quoted(key)} has no {self.column}: {error.reason}") from error
            labels = {name: values[name] for name in (CONFIDENCE, *self.labels) if name in values}
            image = image_in(values[IMAGE], folder, IMAGE).content if values.get(IMAGE) and images else b""
            yield Record(key=key, content=content, values=labels, image=image)

    def _tar_records(self, shard: Shard, wanted: Container[str] | None) -> Iterator[Record]:
        names = (self.column, *(f"{self.column}.{ending}" for ending in IMAGE_EXTENSIONS), *self.members)
        images = IMAGE_EXTENSIONS if self.has_images else ()
        for key, files in self._tar_samples(shard, (*names, "json", CAPTION_MEMBER, *images)):
            if wanted is not None and key not in wanted:
                continue
            content = next((files[name] for name in names if files.get(name)), b"")
            if not content:
                raise SettingError(
                    f"{self.option}: samples must have a member .{self.column} or .{self.column}.png; {quoted(key)} of "
                    f"{shard.uri} lacks both. Name the member ({self.option.removesuffix('s')}-column)."
                )
            image = next((files[name] for name in images if files.get(name) and name not in names), b"")
            yield Record(key=key, content=content, values=labels_of(files, (CONFIDENCE, *self.labels)), image=image)

    def _tar_samples(self, shard: Shard, extensions: tuple[str, ...]) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield key and files of each sample; the key is that of the .json member if it has one."""
        for key, files in tar_samples(shard.uri, self.option, extensions, shard.format == "tar.gz"):
            stated = fields_of(files).get("key")
            yield (stated if isinstance(stated, str) and stated else key), files


def tar_samples(
    uri: str, option: str, extensions: tuple[str, ...], compressed: bool
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and the files with these extensions of each sample of a tar. Raises SettingError if it is damaged."""
    index = index_tar(uri, compressed)
    if index.damage:
        raise SettingError(f"{option}: {uri}: {index.damage}. Create it again, or remove it.")
    chosen = frozenset(extensions)
    samples = read_tar(uri, compressed, 0, index.samples, is_wanted=lambda extension: extension in chosen)
    for _, key, members in samples:
        yield key, _contents(members, chosen)


def _contents(members: list[Member], chosen: Container[str]) -> dict[str, bytes]:
    return {member.extension: member.content or b"" for member in members if member.extension in chosen}


def fields_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the fields of the .json member of a sample; none if there is none or if it is not an object."""
    try:
        found = json.loads(files.get("json") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def labels_of(files: Mapping[str, bytes], labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the wanted values of a sample of a tar: fields of its .json member; the caption may be in the .txt."""
    fields = fields_of(files)
    if CAPTION_MEMBER in files:
        fields.setdefault(CAPTION, files[CAPTION_MEMBER].decode(errors="replace"))
    return {name: fields[name] for name in labels if name in fields}


def decode_map(kind: str, content: bytes) -> np.ndarray:
    """Decode a stored map of a kind of condition."""
    with Image.open(io.BytesIO(content)) as stored:
        return CONDITIONS[kind].decode(stored)


def values_of(row: dict[str, Any] | BadRow) -> dict[str, Any]:
    """Return the values of a row. Raises SampleError if a value cannot be read."""
    if isinstance(row, BadRow):
        raise row.problem
    for value in row.values():
        if isinstance(value, SampleError):
            raise value
    return row


def key_of(row: dict[str, Any] | BadRow) -> str:
    """Return the key of a row. Raises SampleError if there is none."""
    key, problem = named(row.problem if isinstance(row, BadRow) else row["key"], "column key")
    if key is None:
        raise problem or SampleError("read", "column key is null")
    return key


def quoted(key: str) -> str:
    """Return a key for a message."""
    return repr(clipped(key))


def find_files(uri: str, option: str, formats: tuple[str, ...], wanted: str) -> list[Shard]:
    """Find the input files of the wanted formats. Raises SettingError if there are none."""
    try:
        shards = [shard for shard in find_shards([uri]) if shard.format in formats]
    except SettingError as error:
        raise SettingError(str(error).replace("--input", option, 1)) from error
    if not shards:
        raise SettingError(f"{option} {uri!r} contains no {wanted}. Check the path.")
    return shards
