"""Predictions and truth joined by key: the keys of all predictions, but only one truth shard, are in memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from pipelines.errors import SettingError
from pipelines.evaluation.map_sets import (
    CAPTION_MEMBER,
    CONFIDENCE,
    TARS,
    MapSet,
    Record,
    decode_map,
    find_files,
    labels_of,
    quoted,
    tar_samples,
)
from pipelines.readers.shard_index import Shard
from pipelines.storage.damage import reason_of
from unicon.options import SamplingOptions

PROVENANCE = (
    *("model", "adapter", "weights_sha256", "seed"),
    *(entry.name for entry in fields(SamplingOptions)),
    *("views", "ensemble", "dtype", "code_version"),
)
"""Columns that say how predictions were made, with every sampling option that is not at its default."""
MAP_MEMBERS = {"depth": "depth.png", "edge": "edges.png", "pose": "pose.png"}
"""Condition -> member of a rendered scene with its map."""
MAP = "map"
"""Name of the map among the files of a truth that is not a rendered scene."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prediction and its truth."""

    key: str
    estimate: np.ndarray
    """The map, as decoded by its kind of condition."""
    confidence: float | None
    """Confidence of the prediction, higher is better; None if it has none."""
    truth: Mapping[str, bytes]
    """Files of the rendered scene by extension; of any other truth only the map, under the name MAP."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Values of the wanted columns, of the prediction or else of the truth."""
    image: bytes = b""
    """The image of the sample, if it is wanted and known."""


@dataclass(kw_only=True)
class Join:
    """The pairs of two datasets; keys without a partner are known after all pairs were iterated."""

    condition: str
    """Name of the condition, and of its column if no other column is named."""
    predictions: str
    """URI of Parquet files or tars with the maps."""
    truth: str
    """URI of tars with rendered scenes, or of any dataset like the predictions."""
    members: tuple[str, ...] = ()
    """Extensions that a rendered scene must have; empty if the truth is a dataset of maps."""
    option: str = "--predictions"
    """The option that named the predictions, for messages."""
    kind: str = ""
    """Kind of the condition; empty if it is the condition."""
    prediction_column: str = ""
    truth_column: str = ""
    """Names of the columns with the maps; empty if they are the condition."""
    labels: tuple[str, ...] = ()
    """Columns whose values are wanted, if the datasets have them."""
    has_images: bool = False
    """Whether the images are wanted."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Provenance columns of the first prediction."""
    without_estimate: list[str] = field(default_factory=list)
    """Keys of the truth without a prediction."""
    without_truth: list[str] = field(default_factory=list)
    """Keys of predictions without a truth."""
    found_labels: set[str] = field(default_factory=set)
    """The labels that a prediction or a truth has."""

    def pairs(self) -> Iterator[Pair]:
        """Yield all pairs, by truth shard, then in the order of the files of predictions.

        Raises:
            SettingError: An input is not what it should be, or they have no key in common.
        """
        predictions = self._predictions()
        shard_of = self._find_predictions(predictions)
        seen: set[str] = set()
        for shard in self._truth_shards():
            samples = dict(self._read_truth(shard))
            if repeated := samples.keys() & seen:
                raise SettingError(
                    f"--truth: keys must be unique; {quoted(min(repeated))} is in {shard.uri} and in an earlier shard."
                )
            seen |= samples.keys()
            self.without_estimate += sorted(samples.keys() - shard_of.keys())
            partners = {shard_of[key].uri: shard_of[key] for key in samples if key in shard_of}
            for partner in partners.values():
                for record in predictions.records(partner, samples):
                    yield self._pair(record, samples[record.key])
        self.without_truth += sorted(shard_of.keys() - seen)
        if not seen & shard_of.keys():
            raise SettingError(
                f"{self.option} and --truth have no key in common: the first has {_some(shard_of)}, the second "
                f"{_some(seen)}. Estimate the {self.condition} of the same samples."
            )

    def decoded(self, option: str, key: str, content: bytes) -> np.ndarray:
        """Return the map of a row. Raises SettingError if it cannot be decoded."""
        try:
            return decode_map(self.kind or self.condition, content)
        except Exception as error:  # Pillow raises almost any type for broken files
            raise SettingError(
                f"{option}: the {self.condition} of {quoted(key)} cannot be decoded: {reason_of(error)}. "
                "Create it again."
            ) from error

    def _predictions(self) -> MapSet:
        """Return the predictions; those in tars must be named by their member, as rendered scenes are tars too."""
        predictions = self._set(self.option, self.predictions, self.prediction_column)
        if self.prediction_column:
            return predictions
        wanted = "Parquet files that estimate jobs write, and for tars --prediction-column must name the member"
        return replace(predictions, formats=("parquet",), kind_of_files=wanted)

    def _set(self, option: str, uri: str, column: str) -> MapSet:
        return MapSet(
            option=option,
            uri=uri,
            condition=self.condition,
            column=column or self.condition,
            members=() if column or self.condition not in MAP_MEMBERS else (MAP_MEMBERS[self.condition],),
            labels=self.labels,
            has_images=self.has_images,
        )

    def _find_predictions(self, predictions: MapSet) -> dict[str, Shard]:
        """Return key -> file of its prediction, and set the provenance.

        Raises:
            SettingError: There are no predictions, a column is missing, or a key is repeated.
        """
        shard_of: dict[str, Shard] = {}
        for shard in predictions.shards():
            for key in predictions.keys(shard):
                if key in shard_of:
                    raise SettingError(
                        f"{self.option}: keys must be unique; {quoted(key)} is in {shard_of[key].uri} and {shard.uri}. "
                        "Estimate each set of scenes with one setting into one output."
                    )
                shard_of[key] = shard
            self.provenance = self.provenance or predictions.first_values(shard, PROVENANCE)
        return shard_of

    def _truth_shards(self) -> list[Shard]:
        if self.members:
            return find_files(self.truth, "--truth", TARS, "tars that render_scenes.py wrote")
        return self._set("--truth", self.truth, self.truth_column).shards()

    def _read_truth(self, shard: Shard) -> Iterator[tuple[str, "_Truth"]]:
        """Yield key and truth of every sample of a shard.

        Raises:
            SettingError: A member of a sample or a column of a file is missing, or the shard is damaged.
        """
        if self.members:
            yield from self._read_scenes(shard)
            return
        for record in self._set("--truth", self.truth, self.truth_column).records(shard):
            yield record.key, _Truth({MAP: record.content}, record.values, record.image)

    def _read_scenes(self, shard: Shard) -> Iterator[tuple[str, "_Truth"]]:
        wanted = (*self.members, *(("json", CAPTION_MEMBER) if self.labels else ()))
        for key, files in tar_samples(shard.uri, "--truth", wanted, shard.format == "tar.gz"):
            absent = [name for name in self.members if not files.get(name)]
            if absent:
                required = ", ".join(f".{name}" for name in self.members)
                raise SettingError(
                    f"--truth: samples must have the members {required}; {quoted(key)} of {shard.uri} lacks "
                    f".{absent[0]}. Give the output of render_scenes.py, or name the member with the maps "
                    "(--truth-column)."
                )
            scene = {name: files[name] for name in self.members}
            yield key, _Truth(scene, labels_of(files, self.labels), scene.get("png", b""))

    def _pair(self, record: Record, truth: "_Truth") -> Pair:
        labels = {name: value for name, value in {**truth.labels, **record.values}.items() if name in self.labels}
        self.found_labels |= labels.keys()
        return Pair(
            key=record.key,
            estimate=self.decoded(self.option, record.key, record.content),
            confidence=_number(record.values.get(CONFIDENCE)),
            truth=truth.files,
            labels=labels,
            image=record.image or truth.image,
        )


@dataclass(frozen=True)
class _Truth:
    """The truth of a sample."""

    files: Mapping[str, bytes]
    labels: Mapping[str, Any]
    image: bytes


def has_tars(truth: str) -> bool:
    """Return whether a truth has tars. Raises SettingError if it has no files with maps."""
    return any(shard.format in TARS for shard in find_files(truth, "--truth", (*TARS, "parquet"), "maps"))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _some(keys: Iterable[str]) -> str:
    """Return the first keys, for a message."""
    first = sorted(keys)
    return f"{', '.join(map(quoted, first[:3]))}{', ...' if len(first) > 3 else ''}" if first else "none"
