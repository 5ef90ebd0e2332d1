"""Image and maps show the same part; a mirror changes maps as their kind requires."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.pair_rows import draw_row
from unicon.condition_kinds import CONDITION_KINDS
from unicon.conditions import CONDITIONS
from unicon.pose import COLORS, JOINTS
from unicon.training.mirrors import can_mirror, negate_x
from unicon.training.views import View, Views, crop_box, view_map, view_row

KINDS = {"depth": "depth", "canny": "edge"}


def test_image_and_maps_show_the_same_part() -> None:
    rng = np.random.default_rng(0)
    for index in range(8):
        row = draw_row(index)
        zoom, left, top = rng.uniform(0.8, 1), rng.random(), rng.random()
        view = View((32, 24), zoom, left, top, bool(index % 2))
        found = view_row(row, view, KINDS)
        assert found.image.shape == (24, 32, 3) and found.size == (32, 24) and found.mirrored == bool(index % 2)
        assert {name: (each.dtype, each.shape) for name, each in found.maps.items()} == {
            "depth": (np.uint16, (24, 32)), "canny": (np.uint8, (24, 32))
        }  # fmt: skip
        square, near = found.image[..., 0] > 150, found.maps["depth"] > 0.6 * 65535
        assert (square != near).mean() < 0.08
        outline = square ^ (
            np.roll(square, 1, 0) & np.roll(square, -1, 0) & np.roll(square, 1, 1) & np.roll(square, -1, 1) & square
        )
        assert not square.any() or found.maps["canny"][outline].mean() > 3 * found.maps["canny"].mean()


def test_a_mirrored_view_is_the_mirrored_part() -> None:
    row = draw_row(3)
    plain, mirrored = (view_row(row, View((32, 32), 0.9, 0.3, 0.6, flip), KINDS) for flip in (False, True))
    assert np.array_equal(mirrored.image, plain.image[:, ::-1])
    assert all(np.array_equal(mirrored.maps[name], plain.maps[name][:, ::-1]) for name in KINDS)


def test_poses_and_normals_change_with_a_mirror() -> None:
    pose = np.zeros((20, 20, 3), np.uint8)
    pose[4:8, 2:6] = COLORS[JOINTS.index("right_wrist")]
    found = view_map(Image.fromarray(pose), View((20, 20), mirrored=True), "pose")
    assert tuple(found[5, 16]) == tuple(COLORS[JOINTS.index("left_wrist")]) and not found[5, 3].any()
    normals = np.array([[[228, 128, 200], [0, 0, 0]]], np.uint8)
    assert negate_x(normals).tolist() == [[[27, 128, 200], [0, 0, 0]]]
    assert view_map(Image.fromarray(normals), View((2, 1), mirrored=True), "normal")[0].tolist() == [
        [0, 0, 0],
        [27, 128, 200],
    ]


def test_every_known_kind_can_be_mirrored() -> None:
    assert all(can_mirror(kind) for kind in CONDITION_KINDS)
    assert not can_mirror("something_of_a_user")


def test_maps_are_read_as_they_are_stored() -> None:
    values = np.linspace(0, 1, 16, dtype=np.float32)[None].repeat(16, 0)
    whole = View((16, 16))
    assert np.abs(view_map(CONDITIONS["depth"].encode(values), whole, "depth") / 65535 - values).max() < 1e-4
    stored = Image.fromarray((values * 65535).astype(np.uint16))
    assert np.abs(view_map(stored, whole, "edge") / 255.0 - values).max() < 0.003
    assert view_map(stored.convert("L"), whole, "something_of_a_user").shape == (16, 16, 3)


def test_random_sizes_have_a_constant_area() -> None:
    views = Views(resolution_px=512, multiple=64)
    sizes = [views.random_size(chance) for chance in np.linspace(0, 0.999, 50)]
    assert all(width % 64 == height % 64 == 0 and 0.85 < width * height / 512**2 < 1.15 for width, height in sizes)
    assert max(width / height for width, height in sizes) == pytest.approx(2, abs=0.3)
    assert len(set(sizes)) > 5 and views.kept_side_px == 768


def test_crop_box_keeps_the_aspect_ratio_inside_the_image() -> None:
    assert crop_box((100, 50), View((32, 32))) == pytest.approx((0.25, 0.0, 0.75, 1.0))
    left, top, right, bottom = crop_box((100, 50), View((64, 16), 0.5, 1.0, 1.0))
    assert (right, bottom) == (1.0, 1.0)
    assert (right - left) * 100 / ((bottom - top) * 50) == pytest.approx(4)


@pytest.mark.parametrize("options", [{"max_aspect": 0.5}, {"min_crop": 0}, {"flip_probability": 2}, {"multiple": 0}])
def test_views_refuse_nonsense(options: dict) -> None:
    with pytest.raises(ValueError, match="Views need"):
        Views(**{"resolution_px": 32, "multiple": 8, **options})
