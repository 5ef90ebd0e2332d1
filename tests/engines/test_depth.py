"""Predictions of depth estimators become relative inverse depth, 0 far and 1 near."""

from __future__ import annotations

import numpy as np
import pytest

from engines.depth import DEPTH, DISPARITY, relative_inverse_depth, turned_around

METERS = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32)


def test_distances_and_disparities_of_one_scene_give_one_map() -> None:
    expected = (1 / METERS - 1 / 8) / (1 - 1 / 8)
    np.testing.assert_allclose(relative_inverse_depth(METERS, DEPTH), expected, atol=1e-6)
    np.testing.assert_allclose(relative_inverse_depth(METERS * 1000, DEPTH), expected, atol=1e-6)
    np.testing.assert_allclose(relative_inverse_depth(3 / METERS + 5, DISPARITY), expected, atol=1e-5)
    assert relative_inverse_depth(METERS, DEPTH).dtype == np.float32


def test_a_few_wrong_pixels_do_not_flatten_the_rest() -> None:
    meters = np.linspace(1, 10, 10_000, dtype=np.float32).reshape(100, 100)
    meters[0, :5] = [0.0, -1.0, 1e-9, 1e-3, 0.0]
    near = relative_inverse_depth(meters, DEPTH)
    assert near.max() == 1.0 and near[0, 50] > 0.08


def test_single_values_and_values_that_are_not_finite() -> None:
    assert not relative_inverse_depth(np.full((2, 2), 3.0), DISPARITY).any()
    assert not relative_inverse_depth(np.zeros((2, 2)), DEPTH).any()
    assert np.isnan(relative_inverse_depth(np.array([[np.nan, 1.0]]), DEPTH)).any()


@pytest.mark.parametrize("near_to_far", [1.0, 0.25])
def test_depth_that_is_known_up_to_scale_and_shift(near_to_far: float) -> None:
    depth = (METERS - 1) / 7
    found = turned_around(depth, near_to_far)
    assert found.max() == 1.0 and found.min() == 0.0 and (np.diff(found.ravel()) < 0).all()
    if near_to_far == 1.0:
        np.testing.assert_allclose(found, 1 - depth)
    np.testing.assert_allclose(turned_around(depth, 1 / 8), relative_inverse_depth(METERS, DEPTH), atol=1e-6)
