"""The measures of each condition, and the baselines that estimates are compared with.

A measure scores one image at a time, for the estimate and each baseline, and computes metrics from the scores of a set.
A new condition needs one class, added to `measure_of`.

Tested in tests/jobs/test_evaluate.py.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from pipelines.evaluation.resampling import resampled_edges, resampled_poses, weighted_means
from pipelines.scenes.people import decode_people
from unicon.metrics.depth import DepthMetrics, depth_metrics, mean_metrics, vertical_ramp
from unicon.metrics.edge import THRESHOLDS, EdgeCounts, best_edge_metrics, edge_counts, gradient_magnitude
from unicon.metrics.pose import PoseMetrics, pose_metrics, total_pose_metrics
from unicon.pose import JOINTS, read_pose
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering

ESTIMATE, TRAINING_MEAN = "UniCon", "mean of training scenes"
RAMP, GRADIENT = "vertical ramp", "gradient of the picture"
"""Rows of the table, which are also keys of the JSON file."""


class TrainingScenes:
    """Scenes of the training seed, whose means are baselines that do not depend on the image."""

    def __init__(self, seed: int, scenes: int) -> None:
        self.seed = seed
        self.scenes = scenes
        self._means: dict[tuple[Callable[[Rendering], np.ndarray], int, int], np.ndarray] = {}

    def mean(self, value: Callable[[Rendering], np.ndarray], height_px: int, width_px: int) -> np.ndarray:
        """Return the mean of a value over the scenes, without NaN; rendered at the first call for a value and size."""
        wanted = (value, height_px, width_px)
        if wanted not in self._means:
            total, count = np.zeros(()), np.zeros(())
            for index in range(self.scenes):
                found = value(render(sample_scene(self.seed, index), width_px, height_px, supersampling=1))
                known = ~np.isnan(found)
                total = total + np.where(known, found, 0.0)
                count = count + known
            self._means[wanted] = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        return self._means[wanted]


class Measure(ABC):
    """The measure of the estimates of one condition."""

    condition: str
    members: tuple[str, ...]
    """Extensions of the required files of a rendered scene."""
    columns: Mapping[str, tuple[str, str]]
    """Columns of the table: name of the metric -> heading, format."""
    error_name: str
    """Heading of the values of `errors`."""
    error_column: str
    """The metric of `columns` that the errors are about."""

    @property
    def baseline_settings(self) -> dict[str, Any]:
        """The settings of the baselines, for a JSON file."""
        return {}

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings of the measure, for a JSON file."""

    @abstractmethod
    def compare(self, estimate: np.ndarray, truth: Mapping[str, bytes]) -> dict[str, Any]:
        """Return the scores of one image by row of the table: of the estimate and of each baseline.

        Raises:
            ValueError: The estimate does not fit the truth.
        """

    @abstractmethod
    def numbers(self, scores: Sequence[Any]) -> dict[str, float]:
        """Return the metrics of a set, at least those of `columns`."""

    @abstractmethod
    def resampled(self, scores: Sequence[Any], counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metrics of `columns` of sets (R,) that were drawn from a set, see `resampling`.

        Args:
            scores: The scores of N images.
            counts: (R, N) how often each image is in each of the sets.
        """

    @abstractmethod
    def errors(self, scores: Sequence[Any]) -> np.ndarray:
        """Return the error of each image of a set, NaN if it has none."""

    def error(self, score: Any) -> float:
        """Return the error of one image by itself, NaN if it has none."""
        return float(self.errors([score])[0])


class SceneMeasure(Measure):
    """A measure with the exact truth of rendered scenes."""

    def __init__(self, training: TrainingScenes) -> None:
        self.training = training

    @property
    def baseline_settings(self) -> dict[str, Any]:
        return {"mean_map": {"seed": self.training.seed, "scenes": self.training.scenes}}


class DepthMeasure(SceneMeasure):
    """Errors in meters after the best scale and shift, see `unicon.metrics.depth`."""

    condition = "depth"
    members = ("png", "depth.png", "depth_m.npy")
    error_column = "abs_rel"
    columns = {
        "abs_rel": ("AbsRel", ".4f"),
        "rmse_m": ("RMSE m", ".3f"),
        "delta1": ("delta1", ".3f"),
        "delta2": ("delta2", ".3f"),
        "delta3": ("delta3", ".3f"),
    }
    error_name = "AbsRel"

    def __init__(self, training: TrainingScenes, max_depth_m: float) -> None:
        super().__init__(training)
        self.max_depth_m = max_depth_m

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "protocol": "per image least-squares scale and shift of inverse depth, mean over images (arXiv 1907.01341)",
            "max_depth_m": self.max_depth_m,
        }

    def compare(self, estimate: np.ndarray, truth: Mapping[str, bytes]) -> dict[str, DepthMetrics]:
        depth_m = np.load(io.BytesIO(truth["depth_m.npy"]), allow_pickle=False)
        baselines = {
            ESTIMATE: estimate,
            TRAINING_MEAN: self.training.mean(_inverse_depth, *depth_m.shape),
            RAMP: vertical_ramp(*depth_m.shape),
        }
        return {name: depth_metrics(baseline, depth_m, self.max_depth_m) for name, baseline in baselines.items()}

    def numbers(self, scores: Sequence[DepthMetrics]) -> dict[str, float]:
        return asdict(mean_metrics(scores))

    def resampled(self, scores: Sequence[DepthMetrics], counts: np.ndarray) -> dict[str, np.ndarray]:
        return weighted_means([asdict(score) for score in scores], counts)

    def errors(self, scores: Sequence[DepthMetrics]) -> np.ndarray:
        return np.array([score.abs_rel for score in scores])


class EdgeMeasure(SceneMeasure):
    """Precision and recall within one pixel, each row at its own best threshold, see `unicon.metrics.edge`."""

    condition = "edge"
    members = ("png", "edges.png")
    error_column = "f1"
    columns = {
        "f1": ("F1", ".3f"),
        "precision": ("precision", ".3f"),
        "recall": ("recall", ".3f"),
        "threshold": ("threshold", ".2f"),
    }
    error_name = "1 - F1"

    @property
    def settings(self) -> dict[str, Any]:
        return {"protocol": "pixels of all images, tolerance 1 pixel (Chebyshev), best threshold of the set"}

    def compare(self, estimate: np.ndarray, truth: Mapping[str, bytes]) -> dict[str, EdgeCounts]:
        edges = _pixels(truth["edges.png"], "L") > 127
        baselines = {
            ESTIMATE: estimate,
            GRADIENT: gradient_magnitude(_pixels(truth["png"], "RGB")),
            TRAINING_MEAN: self.training.mean(_edges, *edges.shape),
        }
        return {name: edge_counts(baseline, edges) for name, baseline in baselines.items()}

    def numbers(self, scores: Sequence[EdgeCounts]) -> dict[str, float]:
        return asdict(best_edge_metrics(scores))

    def resampled(self, scores: Sequence[EdgeCounts], counts: np.ndarray) -> dict[str, np.ndarray]:
        return resampled_edges(scores, counts)

    def errors(self, scores: Sequence[EdgeCounts]) -> np.ndarray:
        """Return the error of each image at the threshold of the set."""
        level = int(np.abs(THRESHOLDS - best_edge_metrics(scores).threshold).argmin())
        return np.array([1 - score.metrics(THRESHOLDS)[level].f1 for score in scores])


class PoseMeasure(SceneMeasure):
    """Share of correct joints of the skeleton that is read from a drawing, see `unicon.metrics.pose`."""

    condition = "pose"
    members = ("png", "pose.png", "people.json")
    error_column = "pck"
    columns = {"pck": ("PCK", ".3f"), "invention": ("invented", ".3f"), "visible": ("joints", ".0f")}
    error_name = "1 - PCK"

    @property
    def settings(self) -> dict[str, Any]:
        return {"protocol": "PCK at 0.1 of the longer side of the box of visible joints, all joints of all images"}

    def compare(self, estimate: np.ndarray, truth: Mapping[str, bytes]) -> dict[str, PoseMetrics]:
        size = _pixels(truth["pose.png"], "RGB").shape
        if estimate.shape != size:
            raise ValueError(f"estimate and truth must have the same shape, got {estimate.shape} and {size}")
        people = decode_people(truth["people.json"])
        place = self.training.mean(_person, *size[:2])
        mean = np.column_stack([np.nan_to_num(place), ~np.isnan(place[:, 0])])
        read = read_pose(np.round(estimate * 255).astype(np.uint8))
        return {name: pose_metrics(baseline, people) for name, baseline in ((ESTIMATE, read), (TRAINING_MEAN, mean))}

    def numbers(self, scores: Sequence[PoseMetrics]) -> dict[str, float]:
        total = total_pose_metrics(scores)
        return {**asdict(total), "pck": total.pck, "invention": total.invention}

    def resampled(self, scores: Sequence[PoseMetrics], counts: np.ndarray) -> dict[str, np.ndarray]:
        return resampled_poses(scores, counts)

    def errors(self, scores: Sequence[PoseMetrics]) -> np.ndarray:
        """Return the error of each image, NaN if nobody is in view."""
        return np.array([1 - score.pck for score in scores])


def measure_of(condition: str, training: TrainingScenes, max_depth_m: float) -> Measure:
    """Return the measure of a condition; only depth uses the maximum depth."""
    measures = (DepthMeasure(training, max_depth_m), EdgeMeasure(training), PoseMeasure(training))
    return next(measure for measure in measures if measure.condition == condition)


def _inverse_depth(rendering: Rendering) -> np.ndarray:
    return rendering.inverse_depth


def _edges(rendering: Rendering) -> np.ndarray:
    return rendering.edges.astype(np.float32)


def _person(rendering: Rendering) -> np.ndarray:
    """Return the positions (J, 2) of the joints of the first person, NaN for invisible joints."""
    if not len(rendering.people):
        return np.full((len(JOINTS), 2), np.nan)
    return np.where(rendering.people[0, :, 2:] > 0, rendering.people[0, :, :2], np.nan)


def _pixels(content: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as stored:
        return np.asarray(stored.convert(mode))
