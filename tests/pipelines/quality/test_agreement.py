"""The agreement of maps of each kind."""

import math

import numpy as np
import pytest

from pipelines.quality.agreement import agreement
from unicon.scenes import Rendering, render, sample_scene


@pytest.fixture(scope="module")
def scenes() -> list[Rendering]:
    return [render(sample_scene(11, index), 96, 64, supersampling=1) for index in range(2)]


def test_depth_agrees_up_to_scale_shift_and_inverse(scenes: list[Rendering]) -> None:
    near = scenes[0].inverse_depth
    assert agreement(near, 0.3 * near + 0.2, "depth") == pytest.approx(1)
    depth = np.minimum(scenes[0].depth_m, 20)
    far_is_low = 1 - depth / depth.max()
    assert agreement(near, far_is_low, "depth") > 0.95
    assert agreement(near, 1 - near, "depth") == pytest.approx(-1)
    assert agreement(near, scenes[1].inverse_depth, "depth") < 0.9
    assert math.isnan(agreement(near, np.zeros_like(near), "depth"))


def test_edges_a_pixel_apart_agree_at_another_size(scenes: list[Rendering]) -> None:
    edges = np.kron(scenes[0].edges, np.ones((4, 4))).astype(np.float32)
    assert agreement(edges, np.roll(edges, 1, 1), "edge") > 0.8
    assert agreement(edges, scenes[0].edges.astype(np.float32), "edge") > 0.9
    assert agreement(edges, scenes[1].edges.astype(np.float32), "edge") < 0.5


def test_normals_agree_by_angle() -> None:
    colors = np.zeros((20, 30, 3), np.float32) + [0.5, 0.5, 1.0]
    colors[:, :15] = [1.0, 0.5, 0.5]
    assert agreement(colors, colors, "normal") == pytest.approx(1, abs=1e-5)
    assert agreement(colors, colors[:, ::-1], "normal") == pytest.approx(0, abs=0.1)


def test_maps_of_different_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="same channels"):
        agreement(np.zeros((4, 4)), np.zeros((4, 4, 3)), "pose")
