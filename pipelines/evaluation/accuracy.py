"""The accuracy of estimates: scores of each scene beside those of baselines, and errors by confidence.

Tested in tests/jobs/test_evaluate.py.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipelines.errors import SettingError, clipped
from pipelines.evaluation.join import MAP, Join, Pair
from pipelines.evaluation.measures import ESTIMATE, Measure
from pipelines.evaluation.resampling import Interval, intervals
from pipelines.storage.damage import is_damage

SCENES_SHOWN = 8
"""Scenes in the comparison image."""
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


class Quarter(NamedTuple):
    """One quarter of the images, ordered by confidence."""

    name: str
    mean_confidence: float
    error: float
    """Mean over the images."""
    images: int


class Extreme(NamedTuple):
    """A sample with an unusually high or low error."""

    error: float
    pair: Pair


@dataclass(kw_only=True)
class Evaluation:
    """The scores of all pairs."""

    measure: Measure
    join: Join
    scores: dict[str, list[Any]] = field(default_factory=dict)
    """Row of the table -> one score for each image."""
    keys: list[str] = field(default_factory=list)
    """One for each image, as in the following lists."""
    confidence: list[float | None] = field(default_factory=list)
    labels: dict[str, list[Any]] = field(default_factory=dict)
    """Column -> one value for each image, None if it has none."""
    shown: list[Pair] = field(default_factory=list)
    """The first pairs, for the comparison image."""
    worst: list[Extreme] = field(default_factory=list)
    """The images with the highest errors, the highest first."""
    best: list[Extreme] = field(default_factory=list)
    scaled: int = 0
    """Number of estimates of another size than their truth, where these are scaled."""

    @property
    def images(self) -> int:
        """Number of joined pairs."""
        return len(self.keys)

    @property
    def estimates(self) -> list[Any]:
        """The scores of the estimates."""
        return self.scores[ESTIMATE]

    def numbers(self) -> dict[str, dict[str, float]]:
        """Return the metrics of the set, by row of the table."""
        return {name: self.measure.numbers(scores) for name, scores in self.scores.items()}

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Return the confidence intervals of the metrics, by row of the table."""
        return {name: intervals(self.measure, scores) for name, scores in self.scores.items()}

    @property
    def undefined(self) -> int:
        """Number of images whose error is undefined, such as poses of nobody; they do not count."""
        return int(np.isnan(self.measure.errors(self.estimates)).sum())

    def quarters(self) -> list[Quarter]:
        """Return the error of the estimates by confidence; empty if fewer than four images have both."""
        return quarters(self.confidence, self.measure.errors(self.estimates))


def evaluate(join: Join, measure: Measure, extremes: int = 0) -> Evaluation:
    """Compare every estimate with its truth, and the baselines of the measure with the same truth.

    Args:
        join: The predictions and the truth.
        measure: The measure of the condition.
        extremes: Number of the worst and of the best samples to keep.

    Raises:
        SettingError: An input is not what it should be, or they have no key in common.
    """
    evaluation = Evaluation(measure=measure, join=join, labels={name: [] for name in join.labels})
    for pair in join.pairs():
        try:
            scores = measure.compare(pair.estimate, pair.truth)
            evaluation.scaled += MAP in pair.truth and _size_px(pair.truth[MAP]) != pair.estimate.shape[1::-1]
        except Exception as error:  # decoders raise almost any type for broken files
            if not is_damage(error):
                raise
            raise SettingError(f"sample {clipped(pair.key)!r} cannot be evaluated: {clipped(str(error))}") from error
        _add(evaluation, pair, scores, extremes)
    return evaluation


def _add(evaluation: Evaluation, pair: Pair, scores: Mapping[str, Any], extremes: int) -> None:
    for name, score in scores.items():
        evaluation.scores.setdefault(name, []).append(score)
    for name, values in evaluation.labels.items():
        values.append(pair.labels.get(name))
    evaluation.keys.append(pair.key)
    evaluation.confidence.append(pair.confidence)
    if len(evaluation.shown) < SCENES_SHOWN:
        evaluation.shown.append(pair)
    error = evaluation.measure.error(scores[ESTIMATE]) if extremes else math.nan
    if not math.isnan(error):
        one = Extreme(error, pair)
        evaluation.worst = sorted([*evaluation.worst, one], key=lambda each: -each.error)[:extremes]
        evaluation.best = sorted([*evaluation.best, one], key=lambda each: each.error)[:extremes]


def _size_px(content: bytes) -> tuple[int, int]:
    """Return (width, height) of an encoded image."""
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def quarters(confidence: Sequence[float | None], errors: np.ndarray) -> list[Quarter]:
    """Return mean errors of the quarters of images with a confidence and an error; empty below four images."""
    sure = np.array([np.nan if value is None else value for value in confidence], np.float64)
    known = np.isfinite(sure) & np.isfinite(errors)
    if known.sum() < len(QUARTERS):
        return []
    sure, errors = sure[known], errors[known]
    parts = np.array_split(np.argsort(sure, kind="stable"), len(QUARTERS))
    return [
        Quarter(name, float(sure[part].mean()), float(errors[part].mean()), len(part))
        for name, part in zip(QUARTERS, parts, strict=True)
    ]
