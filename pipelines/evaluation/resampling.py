"""Confidence intervals of metrics by the percentile bootstrap: the metrics of many sets drawn from the images of a set.

Efron, "Bootstrap methods: another look at the jackknife" (https://doi.org/10.1214/aos/1176344552). Images are drawn
with replacement, so that an interval says how the metric would vary with other images of the same kind, not with
another training of the model.

Shapes: R sets, N images, T thresholds of edges.

Tested in tests/pipelines/evaluation/test_resampling.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from unicon.metrics.edge import THRESHOLDS, EdgeCounts
from unicon.metrics.pose import PoseMetrics

RESAMPLES = 1000
"""Number of sets that are drawn."""
SEED = 0
LEVEL = 0.95
"""Share of the sets whose metric lies in an interval."""
DRAWN_AT_ONCE = 2_000_000
"""Images that are drawn at once."""
MIN_IMAGES = 2


class Metrics(Protocol):
    """What the intervals need of a `pipelines.evaluation.measures.Measure`."""

    columns: Mapping[str, tuple[str, str]]

    def resampled(self, scores: Sequence[Any], counts: np.ndarray) -> dict[str, np.ndarray]: ...


class Interval(NamedTuple):
    """An interval of a metric; both ends are NaN if it is undefined."""

    low: float
    high: float


def drawn_sets(images: int) -> Iterator[np.ndarray]:
    """Yield counts (R', N) float32, RESAMPLES rows in all: how often each image is in a drawn set."""
    rng = np.random.default_rng(SEED)
    at_once = max(1, DRAWN_AT_ONCE // max(1, images))
    for start in range(0, RESAMPLES, at_once):
        sets = min(at_once, RESAMPLES - start)
        drawn = rng.integers(0, images, (sets, images)) + np.arange(sets)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=sets * images).reshape(sets, images).astype(np.float32)


def intervals(measure: Metrics, scores: Sequence[Any]) -> dict[str, Interval]:
    """Return the interval of each metric of a set."""
    if len(scores) < MIN_IMAGES:
        return dict.fromkeys(measure.columns, Interval(np.nan, np.nan))
    found = [measure.resampled(scores, counts) for counts in drawn_sets(len(scores))]
    return _intervals(measure, found)


def differences(measure: Metrics, scores: Sequence[Any], others: Sequence[Any]) -> dict[str, Interval]:
    """Return the interval of the difference of each metric, scores minus others, of the same images in both."""
    if len(scores) < MIN_IMAGES:
        return dict.fromkeys(measure.columns, Interval(np.nan, np.nan))
    found = []
    for counts in drawn_sets(len(scores)):
        first, second = measure.resampled(scores, counts), measure.resampled(others, counts)
        found.append({name: first[name] - second[name] for name in measure.columns})
    return _intervals(measure, found)


def _intervals(measure: Metrics, found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Interval]:
    return {name: _interval(np.concatenate([part[name] for part in found])) for name in measure.columns}


def _interval(values: np.ndarray) -> Interval:
    known = values[np.isfinite(values)]
    if not len(known):
        return Interval(np.nan, np.nan)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the interval of the mean of values."""
    if len(values) < MIN_IMAGES:
        return Interval(np.nan, np.nan)
    counts = drawn_sets(len(values))
    return _interval(np.concatenate([weighted_means([{"": value} for value in values], each)[""] for each in counts]))


def weighted_means(scores: Sequence[Mapping[str, float]], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the means (R,) of each value over the images where it is a number."""
    means = {}
    for name in scores[0]:
        values = np.array([score[name] for score in scores], np.float32)
        known = np.isfinite(values)
        weights = counts @ known.astype(np.float32)
        means[name] = np.where(weights > 0, counts @ np.where(known, values, 0) / np.maximum(weights, 1), np.nan)
    return means


def resampled_edges(scores: Sequence[EdgeCounts], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics (R,) of edges, each set at its own best threshold; see `unicon.metrics.edge`."""
    estimated, right, found = (
        counts @ np.stack([getattr(score, name) for score in scores]).astype(np.float32)
        for name in ("estimated", "right", "found")
    )
    true = (counts @ np.array([score.true for score in scores], np.float32))[:, None]
    precision = np.where(estimated > 0, right / np.maximum(estimated, 1), 1.0)
    recall = np.where(true > 0, found / np.maximum(true, 1), 1.0)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = f1.argmax(1)
    at = np.arange(len(counts)), best
    return {"f1": f1[at], "precision": precision[at], "recall": recall[at], "threshold": THRESHOLDS[best]}


def resampled_poses(scores: Sequence[PoseMetrics], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics (R,) of poses; see `unicon.metrics.pose`."""
    right, visible, invented, absent = (
        counts @ np.array([getattr(score, name) for score in scores], np.float32)
        for name in ("right", "visible", "invented", "absent")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"pck": right / visible, "invention": invented / absent, "visible": visible}
