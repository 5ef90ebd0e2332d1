"""How good estimates are: scored scene by scene beside guesses that see less, and by how sure they were."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipelines.damage import is_damage
from pipelines.errors import SettingError
from pipelines.evaluation.join import Join, Pair
from pipelines.evaluation.measures import ESTIMATE, Measure
from pipelines.texts import clipped

PICTURE_SCENES = 8
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


class Quarter(NamedTuple):
    """The images of one quarter, ordered by confidence."""

    name: str
    mean_confidence: float
    error: float
    """Mean over the images."""
    images: int


@dataclass(kw_only=True)
class Evaluation:
    """What is known after all pairs."""

    measure: Measure
    join: Join
    scores: dict[str, list[Any]] = field(default_factory=dict)
    """By row of the table, one for each image."""
    confidence: list[float | None] = field(default_factory=list)
    """Of each image."""
    pictured: list[Pair] = field(default_factory=list)
    """The first pairs."""

    @property
    def images(self) -> int:
        """Joined pairs."""
        return len(self.confidence)

    def numbers(self) -> dict[str, dict[str, float]]:
        """The numbers of the set, by row of the table."""
        return {name: self.measure.numbers(scores) for name, scores in self.scores.items()}

    def quarters(self) -> list[Quarter]:
        """The estimates' error by confidence; empty where fewer than four images have both."""
        return quarters(self.confidence, self.measure.errors(self.scores[ESTIMATE]))


def evaluate(predictions: str, truth: str, measure: Measure) -> Evaluation:
    """Compare every estimate with its scene, and the measure's guesses with the same scenes.

    Args:
        predictions: URI of an estimate job's output.
        truth: URI of tars of rendered scenes.
        measure: judges the estimates of one condition.

    Raises:
        SettingError: one of the two is not what it should be, or they have no key in common.
    """
    join = Join(condition=measure.condition, predictions=predictions, truth=truth, members=measure.members)
    evaluation = Evaluation(measure=measure, join=join)
    for pair in join.pairs():
        try:
            scores = measure.compare(pair.estimate, pair.truth)
        except Exception as error:  # decoders raise nearly any type on broken truth
            if not is_damage(error):
                raise
            raise SettingError(f"scene {clipped(pair.key)!r} cannot be evaluated: {clipped(str(error))}") from error
        for name, score in scores.items():
            evaluation.scores.setdefault(name, []).append(score)
        evaluation.confidence.append(pair.confidence)
        if len(evaluation.pictured) < PICTURE_SCENES:
            evaluation.pictured.append(pair)
    return evaluation


def quarters(confidence: Sequence[float | None], errors: np.ndarray) -> list[Quarter]:
    """Mean errors of the quarters of the images that have a confidence and an error; empty below four images."""
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
