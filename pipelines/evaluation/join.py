"""Predictions and truth joined by key: the keys of all predictions, but only one truth shard, are in memory."""

import io
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.errors import SampleError, SettingError, clipped
from pipelines.readers.fields import place_of
from pipelines.readers.parquet import image_in
from pipelines.readers.parquet_columns import check_image_type, check_single, listed
from pipelines.readers.parquet_files import BadRow, OpenParquet, open_parquet, read_row_range
from pipelines.readers.row_samples import named
from pipelines.readers.shard_index import Shard
from pipelines.readers.shards import find_shards
from pipelines.readers.tar import index_tar, read_tar
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.store import FILES
from unicon.conditions import CONDITIONS
from unicon.options import SamplingOptions

PROVENANCE = (
    *("model", "adapter", "weights_sha256", "seed"),
    *(entry.name for entry in fields(SamplingOptions)),
    *("views", "ensemble", "dtype", "code_version"),
)
"""Columns that say how predictions were made, with every sampling option that is not at its default."""
MAP_MEMBERS = {"depth": "depth.png", "edge": "edges.png", "pose": "pose.png"}
"""Condition -> member of a rendered scene with its map."""
TARS = ("tar", "tar.gz")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prediction and its truth."""

    key: str
    estimate: np.ndarray
    """The map, as decoded by its condition."""
    confidence: float | None
    """Confidence of the prediction, higher is better; None if it has none."""
    truth: Mapping[str, bytes]
    """Files of the rendered scene by extension; of a truth in Parquet only the map, under the name of its member."""


@dataclass(kw_only=True)
class Join:
    """The pairs of two datasets; keys without a partner are known after all pairs were iterated."""

    condition: str
    predictions: str
    """URI of Parquet files with the columns `key` and the name of the condition."""
    truth: str
    """URI of tars with rendered scenes, or of Parquet files like the predictions."""
    members: tuple[str, ...]
    """Extensions that a rendered scene must have."""
    truth_formats: tuple[str, ...] = TARS
    provenance: dict[str, Any] = field(default_factory=dict)
    """Provenance columns of the first prediction."""
    without_estimate: list[str] = field(default_factory=list)
    """Keys of the truth without a prediction."""
    without_truth: list[str] = field(default_factory=list)
    """Keys of predictions without a truth."""

    def pairs(self) -> Iterator[Pair]:
        """Yield all pairs, by truth shard, then in the order of the files of predictions.

        Raises:
            SettingError: An input is not what it should be, or they have no key in common.
        """
        file_of = self._find_predictions()
        seen: set[str] = set()
        for shard in _files(self.truth, "--truth", self.truth_formats, "tars that render_scenes.py wrote"):
            scenes = dict(self._read_truth(shard))
            if repeated := scenes.keys() & seen:
                raise SettingError(
                    f"--truth: keys must be unique; {_quoted(min(repeated))} is in {shard.uri} and in an earlier shard."
                )
            seen |= scenes.keys()
            self.without_estimate += sorted(scenes.keys() - file_of.keys())
            for uri in dict.fromkeys(file_of[key] for key in scenes if key in file_of):
                yield from self._pairs_of_file(uri, scenes)
        self.without_truth += sorted(file_of.keys() - seen)
        if not seen & file_of.keys():
            raise SettingError(
                f"--predictions and --truth have no key in common: the first has {_some(file_of)}, the second "
                f"{_some(seen)}. Estimate the {self.condition} of the same samples."
            )

    def _find_predictions(self) -> dict[str, str]:
        """Return key -> URI of its Parquet file, and set the provenance.

        Raises:
            SettingError: There are no predictions, a column is missing, or a key is repeated.
        """
        file_of: dict[str, str] = {}
        for shard in _files(self.predictions, "--predictions", ("parquet",), "Parquet files that estimate jobs write"):
            with self._open(shard.uri, "--predictions") as parquet:
                for _, row in read_row_range(parquet, ["key"], None, [], 0, parquet.rows):
                    key = _key_of(row)
                    if key in file_of:
                        raise SettingError(
                            f"--predictions: keys must be unique; {_quoted(key)} is in {file_of[key]} and {shard.uri}. "
                            "Estimate each set of scenes with one setting into one output."
                        )
                    file_of[key] = shard.uri
                columns = [name for name in PROVENANCE if name in parquet.schema.names]
                if not self.provenance and columns:
                    first = next(read_row_range(parquet, columns, None, [], 0, min(1, parquet.rows)), None)
                    self.provenance = {} if first is None else {**_values(first[1])}
        return file_of

    @contextmanager
    def _open(self, uri: str, option: str) -> Iterator[OpenParquet]:
        """Open a file of maps; what is wrong with it is raised as a SettingError, also in the body."""
        try:
            with open_parquet(uri, FILES) as parquet:
                with parquet.verifying_schema():
                    self._check_columns(parquet.schema, option, uri)
                yield parquet
        except SampleError as error:
            raise SettingError(
                f"{option}: {uri}: {error.reason}. Create its rows again, or remove the file."
            ) from error
        except Exception as error:
            if not is_damage(error):
                raise
            raise SettingError(
                f"{option}: {uri} cannot be read: {reason_of(error)}. Create it again, or remove it."
            ) from error

    def _check_columns(self, schema: pa.Schema, option: str, uri: str) -> None:
        for name in ("key", self.condition):
            check_single(schema, option, name, uri)
        if not {"key", self.condition} <= {*schema.names}:
            raise SettingError(
                f"{option}: files must have the columns key and {self.condition}; {uri} has {listed(schema.names)}. "
                f"Give the output of an estimation of {self.condition}."
            )
        check_image_type(schema, f"{option}: column", self.condition, uri)

    def _pairs_of_file(self, uri: str, scenes: Mapping[str, Mapping[str, bytes]]) -> Iterator[Pair]:
        with self._open(uri, "--predictions") as parquet:
            for key, content, row in self._maps(parquet, uri, scenes):
                yield Pair(
                    key=key,
                    estimate=self.decoded("--predictions", key, content),
                    confidence=_number(row.get("confidence")),
                    truth=scenes[key],
                )

    def _maps(
        self, parquet: OpenParquet, uri: str, wanted: Container[str] | None = None
    ) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        """Yield (key, map, row) of the wanted keys of a file. Raises SampleError."""
        names = [name for name in ("key", self.condition, "confidence") if name in parquet.schema.names]
        folder = place_of(uri)[0]
        for _, row in read_row_range(parquet, names, None, [], 0, parquet.rows):
            key = _key_of(row)
            if wanted is not None and key not in wanted:
                continue
            values = _values(row)
            try:
                content = image_in(values[self.condition], folder, self.condition).content
            except SampleError as error:
                raise SampleError("read", f"row {_quoted(key)} has no {self.condition}: {error.reason}") from error
            yield key, content, values

    def decoded(self, option: str, key: str, content: bytes) -> np.ndarray:
        """Return the map of a row. Raises SettingError if it cannot be decoded."""
        try:
            return decode_map(self.condition, content)
        except Exception as error:  # Pillow raises almost any type for broken files
            raise SettingError(
                f"{option}: the {self.condition} of {_quoted(key)} cannot be decoded: {reason_of(error)}. "
                "Create it again."
            ) from error

    def _read_truth(self, shard: Shard) -> Iterator[tuple[str, Mapping[str, bytes]]]:
        """Yield key and files of every sample of a shard.

        Raises:
            SettingError: A member of a sample or a column of a file is missing, or the shard is damaged.
        """
        if shard.format in TARS:
            yield from read_scenes(shard.uri, self.members, shard.format == "tar.gz")
            return
        with self._open(shard.uri, "--truth") as parquet:
            for key, content, _ in self._maps(parquet, shard.uri):
                yield key, {MAP_MEMBERS[self.condition]: content}


def decode_map(condition: str, content: bytes) -> np.ndarray:
    """Decode a stored map of a condition."""
    with Image.open(io.BytesIO(content)) as stored:
        return CONDITIONS[condition].decode(stored)


def read_scenes(uri: str, members: tuple[str, ...], compressed: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and wanted files of the rendered scenes of a tar.

    Raises:
        SettingError: A file of a scene is missing, or the tar is damaged.
    """
    index = index_tar(uri, compressed)
    if index.damage:
        raise SettingError(f"--truth: {uri}: {index.damage}. Delete it and run render_scenes.py again.")
    for _, key, files in read_tar(uri, compressed, 0, index.samples):
        content = {file.extension: file.content or b"" for file in files if file.extension in members}
        absent = [name for name in members if not content.get(name)]
        if absent:
            wanted = ", ".join(f".{name}" for name in members)
            raise SettingError(
                f"--truth: samples must have the members {wanted}; {_quoted(key)} of {uri} lacks .{absent[0]}. Give "
                "the output of render_scenes.py, or render it again into another folder."
            )
        yield key, content


def _values(row: dict[str, Any] | BadRow) -> dict[str, Any]:
    """Return the values of a row. Raises SampleError if a value cannot be read."""
    if isinstance(row, BadRow):
        raise row.problem
    for value in row.values():
        if isinstance(value, SampleError):
            raise value
    return row


def _key_of(row: dict[str, Any] | BadRow) -> str:
    """Return the key of a row. Raises SampleError if there is none."""
    key, problem = named(row.problem if isinstance(row, BadRow) else row["key"], "column key")
    if key is None:
        raise problem or SampleError("read", "column key is null")
    return key


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _quoted(key: str) -> str:
    return repr(clipped(key))


def _files(uri: str, option: str, formats: tuple[str, ...], wanted: str) -> list[Shard]:
    """Find the input files of the wanted formats."""
    try:
        shards = [shard for shard in find_shards([uri]) if shard.format in formats]
    except SettingError as error:
        raise SettingError(str(error).replace("--input", option, 1)) from error
    if not shards:
        raise SettingError(f"{option} {uri!r} contains no {wanted}. Check the path.")
    return shards


def _some(keys: Iterable[str]) -> str:
    """Return the first keys, for a message."""
    first = sorted(keys)
    return f"{', '.join(map(_quoted, first[:3]))}{', ...' if len(first) > 3 else ''}" if first else "none"
