"""Numbers of validation are best for the truth, by kind; unknown kinds are drawn only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.pair_rows import draw_rows, tiny_recipe
from unicon.pose import JOINTS, draw_pose
from unicon.training.adapter import load_adapters
from unicon.training.sheets import SHEET_HEIGHT_PX
from unicon.training.validation import measure, validate

RNG = np.random.default_rng(0)
DEPTH = RNG.random((2, 20, 24), np.float32)
EDGES = (RNG.random((2, 20, 24)) > 0.9).astype(np.float32)
NORMALS = (RNG.normal(size=(2, 20, 24, 3)) / 4 + 0.5).clip(0, 1).astype(np.float32)
PERSON = np.column_stack(
    [np.linspace(8, 120, len(JOINTS)), RNG.permutation(np.linspace(8, 120, len(JOINTS))), np.ones(len(JOINTS))]
)
POSES = np.stack([draw_pose(PERSON[None], (128, 128)).astype(np.float32) / 255] * 2)


def test_depth_is_compared_up_to_scale_and_shift() -> None:
    assert measure("depth", list(DEPTH * 0.3 + 0.1), list(DEPTH)) == pytest.approx(
        {"difference": 0, "correlation": 1}, abs=1e-5
    )
    assert measure("depth", list(DEPTH[::-1]), list(DEPTH))["correlation"] < 0.3


@pytest.mark.parametrize(
    ("kind", "maps", "name", "best"),
    [("edge", EDGES, "f1", 1), ("pose", POSES, "pck", 1), ("normal", NORMALS, "angle_deg", 0)],
)
def test_the_truth_has_the_best_numbers(kind: str, maps: np.ndarray, name: str, best: float) -> None:
    found = measure(kind, list(maps), list(maps))
    assert found["difference"] == 0 and found[name] == pytest.approx(best, abs=0.05)
    other = measure(kind, list(np.zeros_like(maps) if kind == "pose" else maps[:, ::-1]), list(maps))
    assert abs(other[name] - best) > 0.2 and other["difference"] > 0


def test_a_kind_without_measures_has_a_difference() -> None:
    assert measure("appearance", [NORMALS[0]], [NORMALS[0]]) == {"difference": 0}


def test_unknown_kinds_are_drawn_without_an_estimate(tiny_folder: Path) -> None:
    training = load_adapters(tiny_folder, tiny_recipe(["depth"]), "cpu")
    rows = draw_rows(2)
    numbers, sheets = validate(training, rows, {"depth": "something_of_a_user"})
    assert numbers == {} and sheets["depth"].height == 2 * SHEET_HEIGHT_PX
