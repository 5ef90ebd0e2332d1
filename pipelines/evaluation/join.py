"""Predictions and truth joined by key: every Parquet file's keys are known first, one truth shard is in memory."""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipelines import storage, tar_shards
from pipelines.errors import SettingError
from pipelines.inputs import Shard, find_shards
from unicon.conditions import CONDITIONS

PROVENANCE = ("model", "adapter", "weights_sha256", "seed", "num_inference_steps", "guidance_scale", "code_version")
MAP_MEMBERS = {"depth": "depth.png", "edge": "edges.png", "pose": "pose.png"}
"""The member of a rendered scene that holds the map of a condition."""
TARS = ("tar", "tar.gz")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One prediction and its truth."""

    key: str
    estimate: np.ndarray
    """The map, as its condition decodes it."""
    confidence: float | None
    """What the prediction says of itself, larger is surer; None where it says nothing."""
    truth: Mapping[str, bytes]
    """Files of the rendered scene by extension; of a truth in Parquet only the map, under its member's name."""


@dataclass(kw_only=True)
class Join:
    """The pairs of two data sets; who found no partner is known once all pairs were taken."""

    condition: str
    predictions: str
    """URI of Parquet files with the columns `key` and the condition's name."""
    truth: str
    """URI of tars of rendered scenes, or of Parquet files like the predictions."""
    members: tuple[str, ...]
    """Extensions a rendered scene must have."""
    truth_formats: tuple[str, ...] = TARS
    provenance: dict[str, Any] = field(default_factory=dict)
    """What the first prediction says of its making."""
    without_estimate: list[str] = field(default_factory=list)
    """Keys of truth nobody predicted."""
    without_truth: list[str] = field(default_factory=list)
    """Keys of predictions that have no truth."""

    def pairs(self) -> Iterator[Pair]:
        """All pairs, by truth shard, then in the order of the predictions' files.

        Raises:
            SettingError: one of the two is not what it should be, or they have no key in common.
        """
        file_of = self._find_predictions()
        seen: set[str] = set()
        for shard in _files(self.truth, "--truth", self.truth_formats, "tars that render_scenes.py wrote"):
            scenes = dict(self._read_truth(shard))
            if repeated := scenes.keys() & seen:
                raise SettingError(
                    f"--truth: keys must be unique; {min(repeated)!r} is in {shard.uri} and a shard before."
                )
            seen |= scenes.keys()
            self.without_estimate += sorted(scenes.keys() - file_of.keys())
            for uri in dict.fromkeys(file_of[key] for key in scenes if key in file_of):
                yield from self._pairs_of_file(uri, scenes)
        self.without_truth += sorted(file_of.keys() - seen)
        if not seen & file_of.keys():
            raise SettingError(
                f"no key is in both: --predictions has {_some(file_of)}, --truth has {_some(seen)}. "
                f"Estimate the {self.condition} of the very samples that --truth names."
            )

    def _find_predictions(self) -> dict[str, str]:
        """Key -> URI of its Parquet file; remembers the provenance.

        Raises:
            SettingError: there are none, they lack a column, or a key comes twice.
        """
        file_of: dict[str, str] = {}
        for shard in _files(self.predictions, "--predictions", ("parquet",), "Parquet files that estimate jobs write"):
            with storage.open_read(shard.uri) as file, pq.ParquetFile(file) as parquet:
                self._check_columns(parquet, "--predictions", shard.uri)
                for key in parquet.read(columns=["key"]).column("key").to_pylist():
                    if key in file_of:
                        raise SettingError(
                            f"--predictions: keys must be unique; {key!r} is in {file_of[key]} and {shard.uri}. "
                            "Estimate one set of scenes with one setting into one output."
                        )
                    file_of[key] = shard.uri
                columns = [name for name in PROVENANCE if name in parquet.schema_arrow.names]
                if not self.provenance and parquet.metadata.num_rows and columns:
                    self.provenance = next(parquet.iter_batches(1, columns=columns)).to_pylist()[0]
        return file_of

    def _check_columns(self, parquet: pq.ParquetFile, option: str, uri: str) -> None:
        names = parquet.schema_arrow.names
        if not {"key", self.condition} <= {*names}:
            raise SettingError(
                f"{option}: files must have the columns key and {self.condition}; {uri} has {', '.join(names)}. "
                f"Name the output of an estimation of {self.condition}."
            )

    def _pairs_of_file(self, uri: str, scenes: Mapping[str, Mapping[str, bytes]]) -> Iterator[Pair]:
        with storage.open_read(uri) as file, pq.ParquetFile(file) as parquet:
            for row in _rows(parquet, ("key", self.condition, "confidence")):
                if row["key"] in scenes:
                    stored = row[self.condition]
                    if stored is None or stored["bytes"] is None:
                        raise SettingError(f"--predictions: row {row['key']!r} of {uri} has no {self.condition}.")
                    yield Pair(
                        key=row["key"],
                        estimate=decode_map(self.condition, stored["bytes"]),
                        confidence=row.get("confidence"),
                        truth=scenes[row["key"]],
                    )

    def _read_truth(self, shard: Shard) -> Iterator[tuple[str, Mapping[str, bytes]]]:
        """Key and files of every sample of one shard.

        Raises:
            SettingError: a sample lacks a member, a file lacks a column, or a tar is damaged.
        """
        if shard.format in TARS:
            yield from read_scenes(shard.uri, self.members, shard.format == "tar.gz")
            return
        with storage.open_read(shard.uri) as file, pq.ParquetFile(file) as parquet:
            self._check_columns(parquet, "--truth", shard.uri)
            for row in _rows(parquet, ("key", self.condition)):
                yield row["key"], {MAP_MEMBERS[self.condition]: row[self.condition]["bytes"]}


def decode_map(condition: str, content: bytes) -> np.ndarray:
    """A stored map of a condition."""
    with Image.open(io.BytesIO(content)) as stored:
        return CONDITIONS[condition].decode(stored)


def read_scenes(uri: str, members: tuple[str, ...], compressed: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and wanted files of the rendered scenes of one tar.

    Raises:
        SettingError: a scene lacks a file, or the tar is damaged.
    """
    index = tar_shards.index_tar(uri, compressed)
    if index.damage:
        raise SettingError(f"--truth: {uri}: {index.damage}. Delete it and run render_scenes.py again.")
    for _, key, files in tar_shards.read_tar(uri, compressed, 0, index.samples):
        content = {file.extension: file.content or b"" for file in files if file.extension in members}
        absent = [name for name in members if not content.get(name)]
        if absent:
            raise SettingError(
                f"--truth: samples must have the members {', '.join(f'.{name}' for name in members)}; {key!r} of {uri} "
                f"lacks .{absent[0]}. Name the output of render_scenes.py, or render it again in another folder."
            )
        yield key, content


def _rows(parquet: pq.ParquetFile, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows with those of the columns that are there."""
    names = [name for name in columns if name in parquet.schema_arrow.names]
    for batch in parquet.iter_batches(64, columns=names):
        yield from batch.to_pylist()


def _files(uri: str, option: str, formats: tuple[str, ...], wanted: str) -> list[Shard]:
    """The input files of the wanted formats."""
    try:
        shards = [shard for shard in find_shards([uri]) if shard.format in formats]
    except SettingError as error:
        raise SettingError(str(error).replace("--input", option, 1)) from error
    if not shards:
        raise SettingError(f"{option} {uri!r} holds none of the {wanted}. Check the path.")
    return shards


def _some(keys: Iterable[str]) -> str:
    """The first keys, for a message."""
    first = sorted(keys)
    return f"{', '.join(map(repr, first[:3]))}{', ...' if len(first) > 3 else ''}" if first else "none"
