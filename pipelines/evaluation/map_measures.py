"""The measures of maps against maps, for truths that are no rendered scenes: one for each kind of condition.

Tested in tests/jobs/test_evaluate_maps.py.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.evaluation.join import MAP
from pipelines.evaluation.map_sets import decode_map
from pipelines.evaluation.measures import ESTIMATE, RAMP, Measure
from pipelines.evaluation.resampling import resampled_edges, resampled_poses, weighted_means
from pipelines.quality.agreement import normals, scaled
from unicon.condition_kinds import CONDITION_KINDS
from unicon.metrics.color import color_likeness
from unicon.metrics.correlation import correlation
from unicon.metrics.depth import DELTA_BASE, best_affine, vertical_ramp
from unicon.metrics.edge import EdgeCounts, best_edge_metrics, edge_counts
from unicon.metrics.pose import MIN_CONFIDENCE, PoseMetrics, pose_metrics, total_pose_metrics
from unicon.pose import read_pose

FACING, MEAN_COLOR, EDGES_EVERYWHERE = "facing the camera", "mean of the truth", "edges everywhere"
"""Rows of the table: baselines that do not look at the image."""
MIN_INVERSE_DEPTH = 0.05
"""Relative errors of depth count where the true inverse depth, in [0, 1], is at least this."""
MAX_PSNR_DB = 100.0
"""Peak signal-to-noise ratio of equal maps."""
ANGLES_DEG = (11.25, 22.5, 30.0)
TRUE_EDGE = 0.5
"""A pixel of the truth is an edge if its strength is above this."""


class MapMeasure(Measure):
    """The measure of maps against maps of one kind."""

    condition = ""
    members = ()
    protocol: str

    def __init__(self, kind: str) -> None:
        self.condition = kind

    @property
    def settings(self) -> dict[str, Any]:
        return {"protocol": f"{self.protocol}; estimates of another size are scaled to the truth"}

    def compare(self, estimate: np.ndarray, truth: Mapping[str, bytes]) -> dict[str, Any]:
        true = decode_map(self.condition, truth[MAP])
        return {ESTIMATE: self.score(estimate, true), **self.baselines(true)}

    @abstractmethod
    def score(self, estimate: np.ndarray, truth: np.ndarray) -> Any:
        """Return the scores of one map, which may have another size than the truth."""

    def baselines(self, truth: np.ndarray) -> dict[str, Any]:
        """Return the scores of baselines by row of the table."""
        return {}


class MeanMeasure(MapMeasure):
    """A measure whose metrics are means over the images."""

    def numbers(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: _mean([score[name] for score in scores]) for name in self.columns}

    def resampled(self, scores: Sequence[Mapping[str, float]], counts: np.ndarray) -> dict[str, np.ndarray]:
        return weighted_means(scores, counts)

    def errors(self, scores: Sequence[Mapping[str, float]]) -> np.ndarray:
        values = np.array([score[self.error_column] for score in scores])
        return 1 - values if self.error_name.startswith("1 - ") else values


class DepthMapMeasure(MeanMeasure):
    """Errors of relative inverse depth against relative inverse depth, after the best scale and shift."""

    columns = {
        "abs_rel": ("AbsRel", ".4f"),
        "rmse": ("RMSE", ".4f"),
        "delta1": ("delta1", ".3f"),
        "correlation": ("corr.", ".3f"),
    }
    error_name, error_column = "AbsRel", "abs_rel"
    protocol = (
        "relative inverse depth against relative inverse depth in [0, 1], without meters: per image least-squares "
        f"scale and shift; AbsRel and delta1 where the truth is at least {MIN_INVERSE_DEPTH}; mean over images"
    )

    def score(self, estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        estimate = _fitted(estimate, truth).astype(np.float64)
        scale, shift = best_affine(estimate.ravel(), truth.ravel().astype(np.float64))
        aligned = scale * estimate + shift
        near = truth >= MIN_INVERSE_DEPTH
        ratio = np.maximum(aligned[near], 1e-6) / truth[near]
        return {
            "abs_rel": _mean(np.abs(aligned[near] - truth[near]) / truth[near]),
            "rmse": float(np.sqrt(((aligned - truth) ** 2).mean())),
            "delta1": _mean(np.maximum(ratio, 1 / ratio) < DELTA_BASE),
            "correlation": correlation(estimate, truth),
        }

    def baselines(self, truth: np.ndarray) -> dict[str, Any]:
        return {RAMP: self.score(vertical_ramp(*truth.shape), truth)}


class NormalMapMeasure(MeanMeasure):
    """Angles between normals, in degrees."""

    columns = {
        "mean_deg": ("mean deg", ".2f"),
        "median_deg": ("median", ".2f"),
        **{f"within_{int(angle)}": (f"< {angle:g}", ".3f") for angle in ANGLES_DEG},
    }
    error_name, error_column = "mean deg", "mean_deg"
    protocol = "angle between unit normals, at the pixels where the truth is not black; mean over images"

    def score(self, estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return self._score(normals(_fitted(estimate, truth)), truth)

    def baselines(self, truth: np.ndarray) -> dict[str, Any]:
        return {FACING: self._score(np.broadcast_to(np.array([0.0, 0.0, 1.0]), truth.shape), truth)}

    def _score(self, estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        is_known = truth.max(-1) > 0
        cosines = (estimate * normals(truth)).sum(-1)[is_known]
        angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        shares = {f"within_{int(angle)}": _mean(angles < angle) for angle in ANGLES_DEG}
        return {"mean_deg": _mean(angles), "median_deg": float(np.median(angles)) if len(angles) else np.nan, **shares}


class ColorMapMeasure(MeanMeasure):
    """Similarity of RGB images: of their colors regardless of position, and of their pixels."""

    columns = {"color": ("colors", ".3f"), "correlation": ("corr.", ".3f"), "psnr": ("PSNR dB", ".2f")}
    error_name, error_column = "1 - colors", "color"
    protocol = "intersection of color histograms, Pearson correlation and PSNR of the pixels; mean over images"

    def score(self, estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        colors = color_likeness(*(np.round(each * 255).astype(np.uint8) for each in (estimate, truth)))
        return {"color": colors, **_pixel_scores(estimate, truth)}

    def baselines(self, truth: np.ndarray) -> dict[str, Any]:
        return {MEAN_COLOR: self.score(np.broadcast_to(truth.mean((0, 1)), truth.shape), truth)}


class GrayMapMeasure(MeanMeasure):
    """Similarity of the pixels of gray maps."""

    columns = {"correlation": ("corr.", ".3f"), "psnr": ("PSNR dB", ".2f"), "mae": ("MAE", ".4f")}
    error_name, error_column = "1 - correlation", "correlation"
    protocol = "Pearson correlation, PSNR and mean absolute error of the pixels; mean over images"

    def score(self, estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return {**_pixel_scores(estimate, truth), "mae": float(np.abs(_fitted(estimate, truth) - truth).mean())}

    def baselines(self, truth: np.ndarray) -> dict[str, Any]:
        return {MEAN_COLOR: self.score(np.full_like(truth, truth.mean()), truth)}


class EdgeMapMeasure(MapMeasure):
    """Precision and recall of edges within one pixel, at the best threshold of the set."""

    columns = {
        "f1": ("F1", ".3f"),
        "precision": ("precision", ".3f"),
        "recall": ("recall", ".3f"),
        "threshold": ("threshold", ".2f"),
    }
    error_name, error_column = "1 - F1", "f1"
    protocol = (
        f"edges of the truth are pixels above {TRUE_EDGE}; pixels of all images, tolerance 1 pixel (Chebyshev), best "
        "threshold of the set"
    )

    def score(self, estimate: np.ndarray, truth: np.ndarray) -> EdgeCounts:
        return edge_counts(_fitted(estimate, truth), truth > TRUE_EDGE)

    def baselines(self, truth: np.ndarray) -> dict[str, Any]:
        return {EDGES_EVERYWHERE: self.score(np.ones_like(truth), truth)}

    def numbers(self, scores: Sequence[EdgeCounts]) -> dict[str, float]:
        best = best_edge_metrics(scores)
        return {name: getattr(best, name) for name in self.columns}

    def resampled(self, scores: Sequence[EdgeCounts], counts: np.ndarray) -> dict[str, np.ndarray]:
        return resampled_edges(scores, counts)

    def errors(self, scores: Sequence[EdgeCounts]) -> np.ndarray:
        """Return the error of each image at its own best threshold."""
        return np.array([1 - best_edge_metrics([score]).f1 for score in scores])


class PoseMapMeasure(MapMeasure):
    """Share of correct joints, where the truth is the skeleton that is read from a drawing."""

    columns = {"pck": ("PCK", ".3f"), "invention": ("invented", ".3f"), "visible": ("joints", ".0f")}
    error_name, error_column = "1 - PCK", "pck"
    protocol = (
        "joints of the one skeleton that is read from the true drawing; PCK at 0.1 of the longer side of its box, all "
        "joints of all images"
    )

    def score(self, estimate: np.ndarray, truth: np.ndarray) -> PoseMetrics:
        drawn, true = (read_pose(np.round(each * 255).astype(np.uint8)) for each in (estimate, truth))
        drawn[:, :2] *= truth.shape[1] / estimate.shape[1], truth.shape[0] / estimate.shape[0]
        true[:, 2] = true[:, 2] >= MIN_CONFIDENCE
        return pose_metrics(drawn, true[None])

    def numbers(self, scores: Sequence[PoseMetrics]) -> dict[str, float]:
        total = total_pose_metrics(scores)
        return {"pck": total.pck, "invention": total.invention, "visible": total.visible}

    def resampled(self, scores: Sequence[PoseMetrics], counts: np.ndarray) -> dict[str, np.ndarray]:
        return resampled_poses(scores, counts)

    def errors(self, scores: Sequence[PoseMetrics]) -> np.ndarray:
        """Return the error of each image, NaN if nobody is drawn."""
        return np.array([1 - score.pck for score in scores])


_OF_KINDS: Mapping[str, type[MapMeasure]] = {
    "depth": DepthMapMeasure,
    "edge": EdgeMapMeasure,
    "normal": NormalMapMeasure,
    "pose": PoseMapMeasure,
}


def map_measure_of(kind: str) -> MapMeasure:
    """Return the measure of maps of a kind of condition; kinds without one of their own are compared as pixels."""
    others = ColorMapMeasure if CONDITION_KINDS[kind].channels == 3 else GrayMapMeasure
    return _OF_KINDS.get(kind, others)(kind)


def _pixel_scores(estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    estimate = _fitted(estimate, truth)
    squared = float(((estimate - truth) ** 2).mean())
    psnr = MAX_PSNR_DB if squared == 0 else min(MAX_PSNR_DB, -10 * float(np.log10(squared)))
    return {"correlation": correlation(estimate, truth), "psnr": psnr}


def _fitted(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the estimate in the size of the truth."""
    return estimate if estimate.shape == truth.shape else scaled(estimate, (truth.shape[1], truth.shape[0]))


def _mean(values: np.ndarray | Sequence[float]) -> float:
    """Return the mean of the numbers among the values, NaN if there are none."""
    listed = np.asarray(values, np.float64)
    known = listed[np.isfinite(listed)]
    return float(known.mean()) if len(known) else float("nan")
