"""Depth metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unicon.metrics import DepthMetrics, best_affine, depth_metrics, mean_metrics, vertical_ramp

TRUTH_M = np.array([[1.0, 2.0], [4.0, np.inf]])


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.01, 0.3), (-2.0, 5.0)])
def test_any_affine_image_of_the_truth_is_perfect(scale: float, shift: float) -> None:
    found = depth_metrics(scale / TRUTH_M + shift, TRUTH_M)
    assert (found.delta1, found.delta2, found.delta3) == (1, 1, 1)
    assert found.abs_rel == pytest.approx(0, abs=1e-12)
    assert found.rmse_m == pytest.approx(0, abs=1e-12)


def test_constant_estimate_by_hand() -> None:
    """Truth 1, 2, 4 m: mean inverse depth 7/12, so every pixel is estimated at 12/7 m."""
    found = depth_metrics(np.full((2, 2), 0.5), TRUTH_M)
    depth_m = 12 / 7
    assert found.abs_rel == pytest.approx(np.mean([depth_m - 1, (2 - depth_m) / 2, (4 - depth_m) / 4]))
    assert found.rmse_m == pytest.approx(np.sqrt(np.mean([(depth_m - 1) ** 2, (2 - depth_m) ** 2, (4 - depth_m) ** 2])))
    assert (found.delta1, found.delta2, found.delta3) == pytest.approx((1 / 3, 1 / 3, 2 / 3))


def test_aligned_inverse_depth_stops_at_the_cap() -> None:
    """The line through this estimate is negative at the far pixel, which must become the cap, no negative depth."""
    truth_m = np.array([[1.0, 1.0, 10.0, 10.0]])
    estimate = np.array([[1.0, 1.0, 0.5, -0.5]])
    scale, shift = best_affine(estimate[0], 1 / truth_m[0])
    assert scale * -0.5 + shift < 0
    found = depth_metrics(estimate, truth_m, max_depth_m=12.0)
    depth_m = 1 / np.maximum(scale * estimate[0] + shift, 1 / 12)
    assert depth_m[-1] == pytest.approx(12)
    assert found.abs_rel == pytest.approx(np.mean(np.abs(depth_m - truth_m[0]) / truth_m[0]))


def test_pixels_beyond_the_cap_do_not_count() -> None:
    far = np.array([[1.0, 2.0], [4.0, 50.0]])
    estimate = np.array([[0.9, 0.6], [0.3, 77.0]])
    assert depth_metrics(estimate, far) == depth_metrics(estimate, TRUTH_M)
    assert depth_metrics(estimate, far, max_depth_m=60) != depth_metrics(estimate, TRUTH_M)


def test_mean_is_over_images() -> None:
    one = DepthMetrics(abs_rel=0.1, rmse_m=1.0, delta1=0.5, delta2=0.6, delta3=0.7)
    two = DepthMetrics(abs_rel=0.3, rmse_m=2.0, delta1=0.7, delta2=0.8, delta3=0.9)
    mean = mean_metrics([one, two])
    assert (mean.abs_rel, mean.rmse_m, mean.delta1) == pytest.approx((0.2, 1.5, 0.6))
    assert (mean.delta2, mean.delta3) == pytest.approx((0.7, 0.8))


def test_ramp() -> None:
    ramp = vertical_ramp(3, 2)
    assert ramp.tolist() == [[0, 0], [0.5, 0.5], [1, 1]]


@pytest.mark.parametrize(
    ("estimate", "truth", "message"),
    [
        (np.ones((2, 3)), TRUTH_M, "one shape"),
        (np.ones((2, 2)), np.full((2, 2), np.inf), "finite depth up to 12 m"),
        (np.ones((2, 2)), np.full((2, 2), 13.0), "its smallest is 13 m"),
        (np.full((2, 2), np.nan), TRUTH_M, "must be finite"),
    ],
)
def test_refuses(estimate: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depth_metrics(estimate, truth)


def test_estimate_may_be_undefined_in_the_sky() -> None:
    estimate = np.where(np.isfinite(TRUTH_M), 1 / TRUTH_M, np.nan)
    assert depth_metrics(estimate, TRUTH_M).delta1 == 1


def test_mean_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        mean_metrics([])
