"""Confidence intervals: the same as SciPy's, and metrics of sets that agree with those of lists."""

import numpy as np
import pytest
from scipy import stats

from pipelines.evaluation.map_measures import map_measure_of
from pipelines.evaluation.resampling import (
    LEVEL,
    RESAMPLES,
    drawn_sets,
    mean_interval,
    resampled_edges,
    resampled_poses,
)
from unicon.metrics.edge import best_edge_metrics, edge_counts
from unicon.metrics.pose import PoseMetrics, total_pose_metrics


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).exponential(1, 200)
    ours = mean_interval(values.tolist())
    theirs = stats.bootstrap((values,), np.mean, confidence_level=LEVEL, method="percentile", rng=1).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.02)
    assert mean_interval(values.tolist()) == ours
    assert all(np.isnan(mean_interval([1.0])))


def test_every_set_has_as_many_images() -> None:
    sets = np.concatenate(list(drawn_sets(2_500)))
    assert sets.shape == (RESAMPLES, 2_500) and (sets.sum(1) == 2_500).all()
    assert sets.mean(0).std() < 0.05


def test_metrics_of_a_drawn_set_are_those_of_its_images() -> None:
    rng = np.random.default_rng(0)
    edges = [edge_counts(rng.random((9, 9)), rng.random((9, 9)) > 0.8) for _ in range(4)]
    counts = np.array([[2, 0, 1, 1], [1, 1, 1, 1]], np.float32)
    found = resampled_edges(edges, counts)
    for at, images in enumerate(([0, 0, 2, 3], [0, 1, 2, 3])):
        best = best_edge_metrics([edges[image] for image in images])
        assert {name: float(values[at]) for name, values in found.items()} == pytest.approx(vars(best), abs=1e-5)
    poses = [PoseMetrics(right=at, visible=9, invented=1, absent=at) for at in range(4)]
    pck = resampled_poses(poses, counts)["pck"]
    assert pck.tolist() == pytest.approx(
        [total_pose_metrics([poses[0], poses[0], poses[2], poses[3]]).pck, total_pose_metrics(poses).pck]
    )


def test_an_undefined_score_does_not_count() -> None:
    scores = [{"abs_rel": value, "rmse": 1.0, "delta1": 1.0, "correlation": 1.0} for value in (0.1, np.nan, 0.3)]
    counts = np.array([[1, 1, 1], [0, 3, 0]], np.float32)
    found = map_measure_of("depth").resampled(scores, counts)["abs_rel"]
    assert found[0] == pytest.approx(0.2) and np.isnan(found[1])
    assert map_measure_of("depth").numbers(scores)["abs_rel"] == pytest.approx(0.2)
