"""The accuracy of estimates: scores of each scene beside those of baselines, and errors by confidence.

Tested in tests/jobs/test_evaluate.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import SettingError, clipped
from pipelines.evaluation.join import Join, Pair
from pipelines.evaluation.measures import ESTIMATE, Measure
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


@dataclass(kw_only=True)
class Evaluation:
    """The scores of all pairs."""

    measure: Measure
    join: Join
    scores: dict[str, list[Any]] = field(default_factory=dict)
    """Row of the table -> one score for each image."""
    confidence: list[float | None] = field(default_factory=list)
    """One value for each image."""
    shown: list[Pair] = field(default_factory=list)
    """The first pairs, for the comparison image."""

    @property
    def images(self) -> int:
        """Number of joined pairs."""
        return len(self.confidence)

    def numbers(self) -> dict[str, dict[str, float]]:
        """Return the metrics of the set, by row of the table."""
        return {name: self.measure.numbers(scores) for name, scores in self.scores.items()}

    def quarters(self) -> list[Quarter]:
        """Return the error of the estimates by confidence; empty if fewer than four images have both."""
        return quarters(self.confidence, self.measure.errors(self.scores[ESTIMATE]))


def evaluate(predictions: str, truth: str, measure: Measure) -> Evaluation:
    """Compare every estimate with its scene, and the baselines of the measure with the same scenes.

    Args:
        predictions: URI of the output of an estimate job.
        truth: URI of tars with rendered scenes.
        measure: The measure of the condition.

    Raises:
        SettingError: An input is not what it should be, or they have no key in common.
    """
    join = Join(condition=measure.condition, predictions=predictions, truth=truth, members=measure.members)
    evaluation = Evaluation(measure=measure, join=join)
    for pair in join.pairs():
        try:
            scores = measure.compare(pair.estimate, pair.truth)
        except Exception as error:  # decoders raise almost any type for broken files
            if not is_damage(error):
                raise
            raise SettingError(f"scene {clipped(pair.key)!r} cannot be evaluated: {clipped(str(error))}") from error
        for name, score in scores.items():
            evaluation.scores.setdefault(name, []).append(score)
        evaluation.confidence.append(pair.confidence)
        if len(evaluation.shown) < SCENES_SHOWN:
            evaluation.shown.append(pair)
    return evaluation


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
