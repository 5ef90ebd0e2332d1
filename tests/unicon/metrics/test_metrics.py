"""Metrics of depth, edges and poses, correlation and colors, against values computed by hand or by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unicon.metrics import correlation
from unicon.metrics.color import color_likeness
from unicon.metrics.depth import DepthMetrics, best_affine, depth_metrics, mean_metrics, vertical_ramp
from unicon.metrics.edge import THRESHOLDS, EdgeCounts, best_edge_metrics, edge_counts, edge_metrics, gradient_magnitude
from unicon.metrics.pose import pose_metrics, total_pose_metrics

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


def line(row: int, *, strength: float = 1.0, columns: int = 8) -> np.ndarray:
    """(10, 8) with one row of edge."""
    found = np.zeros((10, columns))
    found[row] = strength
    return found


@pytest.mark.parametrize(
    ("row", "tolerance_px", "expected"),
    [(4, 0, 1.0), (5, 0, 0.0), (5, 1, 1.0), (3, 1, 1.0), (6, 1, 0.0), (6, 2, 1.0)],
)
def test_an_edge_beside_the_true_one(row: int, tolerance_px: int, expected: float) -> None:
    found = edge_metrics(line(row), line(4) > 0, 0.5, tolerance_px)
    assert (found.precision, found.recall, found.f1) == pytest.approx((expected, expected, expected))


def test_tolerance_is_that_of_a_square() -> None:
    estimate, truth = np.zeros((5, 5)), np.zeros((5, 5), bool)
    estimate[1, 1], truth[2, 2] = 1, True
    assert edge_metrics(estimate, truth, 0.5).f1 == 1


def test_edges_by_hand() -> None:
    """Two lines of 8 pixels estimated, one right; of two true lines one is found."""
    found = edge_metrics(line(2) + line(8), (line(3) + line(5)) > 0, 0.5)
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert edge_metrics(line(2), (line(2) + line(7)) > 0, 0.5).f1 == pytest.approx(2 / 3)


def test_edges_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    for tolerance_px in (0, 1, 2):
        estimate, truth = rng.random((12, 9)).astype(np.float32), rng.random((12, 9)) < 0.1
        counts = edge_counts(estimate, truth, tolerance_px)
        for level in (0, 30, 98):
            here, there = np.argwhere(estimate >= THRESHOLDS[level]), np.argwhere(truth)
            near = np.abs(here[:, None] - there[None]).max(-1) <= tolerance_px
            expected = (len(here), near.any(1).sum(), near.any(0).sum(), len(there))
            assert (counts.estimated[level], counts.right[level], counts.found[level], counts.true) == expected


def test_nothing_estimated_and_nothing_there() -> None:
    nothing = np.zeros((4, 4))
    empty = edge_metrics(nothing, nothing > 0, 0.5)
    assert (empty.precision, empty.recall, empty.f1) == (1, 1, 1)
    missed = edge_metrics(nothing, np.eye(4) > 0, 0.5)
    assert (missed.precision, missed.recall, missed.f1) == (1, 0, 0)


def test_one_threshold_serves_the_whole_set() -> None:
    """Each image has a perfect threshold of its own, above 0.6 and up to 0.3; the set must choose one of the two."""
    strong = line(2, strength=0.9) + line(7, strength=0.6)
    weak = line(2, strength=0.3)
    truth = line(2) > 0
    each = [edge_counts(strong, truth), edge_counts(weak, truth)]
    assert [best_edge_metrics([counts]).f1 for counts in each] == [1, 1]
    found = best_edge_metrics(each)
    assert found.threshold <= 0.3
    assert (found.precision, found.recall) == pytest.approx((2 / 3, 1))


def test_edges_refuse() -> None:
    with pytest.raises(ValueError, match="one shape"):
        edge_metrics(np.ones((2, 3)), np.ones((3, 2), bool), 0.5)
    with pytest.raises(ValueError, match="must be finite; 4 pixels"):
        edge_counts(np.full((2, 2), np.nan), np.ones((2, 2), bool))
    empty: list[EdgeCounts] = []
    with pytest.raises(ValueError, match="at least one image"):
        best_edge_metrics(empty)


def test_gradient_of_a_step() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    image[:, 4:] = 255
    expected = np.zeros((6, 8))
    expected[:, 3:5] = 1
    np.testing.assert_allclose(gradient_magnitude(image), expected, atol=1e-6)
    np.testing.assert_allclose(gradient_magnitude(image.swapaxes(0, 1)), expected.T, atol=1e-6)
    assert gradient_magnitude(np.full((5, 5, 3), 77, np.uint8)).max() < 1e-6


PERSON = np.array([[10.0, 10.0, 1], [20.0, 40.0, 1], [30.0, 20.0, 1], [90.0, 90.0, 0]])
"""The box of the visible joints is 20 x 30 pixels: 3 pixels of tolerance."""


def test_joints_by_hand() -> None:
    estimate = PERSON + [[0, 2.9, 0], [3.1, 0, 0], [0, 0, -0.9], [0, 0, 0.5]]
    found = pose_metrics(estimate, PERSON[None])
    assert (found.right, found.visible) == (1, 3)  # one is near, one too far, one not drawn
    assert (found.invented, found.absent) == (1, 1)
    assert found.pck == pytest.approx(1 / 3) and found.invention == 1
    assert pose_metrics(estimate, PERSON[None], alpha=0.11).right == 2


def test_the_truth_itself_is_perfect() -> None:
    found = pose_metrics(PERSON, PERSON[None])
    assert (found.pck, found.invention) == (1, 0)


def test_a_single_visible_joint_has_a_pixel_of_tolerance() -> None:
    truth = PERSON * [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]]
    assert pose_metrics(PERSON + [0.6, 0.6, 0], truth[None]).right == 1
    assert pose_metrics(PERSON + [0.8, 0.8, 0], truth[None]).right == 0


def test_one_estimate_cannot_be_right_about_two_people() -> None:
    other = PERSON + [50, 0, 0]
    assert pose_metrics(PERSON, np.stack([PERSON, other])).pck == 0.5


def test_nobody() -> None:
    nobody = np.zeros((0, 4, 3))
    found = pose_metrics(PERSON, nobody)
    assert (found.visible, found.invented, found.absent) == (0, 3, 4)
    assert np.isnan(found.pck)
    total = total_pose_metrics([found, pose_metrics(PERSON, PERSON[None])])
    assert (total.pck, total.invention) == (1, 3 / 5)


def test_pose_refuses() -> None:
    with pytest.raises(ValueError, match=r"\(P, J, 3\), got \(4, 3\) and \(1, 5, 3\)"):
        pose_metrics(PERSON, np.zeros((1, 5, 3)))


def test_color_likeness_counts_pixels_of_one_color() -> None:
    red, blue = np.zeros((2, 4, 6, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    half = red.copy()
    half[:, :3] = blue[:, :3]
    assert color_likeness(red, red[::-1, :2]) == pytest.approx(1)
    assert color_likeness(red, blue) == 0
    assert color_likeness(red, half) == pytest.approx(0.5)
    assert color_likeness(red + np.uint8(1), red) == pytest.approx(1)  # one bin
    with pytest.raises(ValueError, match="uint8"):
        color_likeness(red / 255, red)


def test_correlation() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((16, 12)), rng.random((16, 12))
    assert correlation(one, other) == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    assert correlation(one, 3 * one + 2) == pytest.approx(1)
    assert correlation(one, -one) == pytest.approx(-1)
    assert correlation(one, np.full((16, 12), 0.3)) == 0
    with pytest.raises(ValueError, match="one shape"):
        correlation(one, one.T)


def test_a_set_without_a_true_edge_has_no_score() -> None:
    nothing = np.zeros((8, 8), np.float32)
    assert math.isnan(best_edge_metrics([edge_counts(nothing, nothing > 0)]).f1)
