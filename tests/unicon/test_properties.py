"""A row's result belongs to the row, in every mode and with every sampler.

Together, alone, in another order, among other neighbors and sizes: the same result to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny import tiny_model
from unicon import Generated

TOLERANCE = 1e-4
"""Absolute tolerance of maps in [0, 1], float32, as stated in `unicon.model`. Images differ by one level at most."""
SIZES = [(32, 32), (40, 30), (34, 33), (32, 32), (41, 30)]
SEEDS = [3, 1, 4, 1, 5]
PROMPTS = ["a cat", "", "two dogs", "a cat", "rain"]
ROWS = list(range(len(SIZES)))
SAMPLERS = [
    {"sampler": "ddim"},
    {"sampler": "ddim", "eta": 0.7},
    {"sampler": "euler"},
    {"sampler": "euler_ancestral"},
    {"sampler": "dpmsolver++"},
]


def noise_map(seed: int, size: tuple[int, int], *channels: int) -> np.ndarray:
    return np.random.default_rng(seed).random((size[1], size[0], *channels), dtype=np.float32)


IMAGES = [Image.fromarray((noise_map(row, size, 3) * 255).astype(np.uint8)) for row, size in enumerate(SIZES)]
DEPTHS = [noise_map(10 + row, size) for row, size in enumerate(SIZES)]
POSES = [noise_map(20 + row, size, 3) for row, size in enumerate(SIZES)]
MASKS = [noise_map(30 + row, size) > 0.7 for row, size in enumerate(SIZES)]


def take(values: list, rows: list[int]) -> list:
    return [values[row] for row in rows]


def estimate(rows: list[int], options: dict[str, Any]) -> list[np.ndarray]:
    return tiny_model().estimate(take(IMAGES, rows), "depth", prompts=take(PROMPTS, rows), **options)


def estimate_ensemble(rows: list[int], options: dict[str, Any]) -> list[np.ndarray]:
    estimates = tiny_model().estimate_ensemble(take(IMAGES, rows), "edge", ensemble_size=3, **options)
    return [np.stack([estimate.map, estimate.spread]) for estimate in estimates]


def synthesize(rows: list[int], options: dict[str, Any]) -> list[Generated]:
    return tiny_model().synthesize({"depth": take(DEPTHS, rows)}, take(PROMPTS, rows), **options)


def synthesize_from_two(rows: list[int], options: dict[str, Any]) -> list[Generated]:
    conditions = {"depth": take(DEPTHS, rows), "id": take(POSES, rows)}
    weights = {"id": (0.5, 1.0)}
    return tiny_model().synthesize(
        conditions, take(PROMPTS, rows), weights=weights, condition_guidance_scale=0.5, **options
    )


def generate_pairs(rows: list[int], options: dict[str, Any]) -> list[Generated]:
    return tiny_model().generate_pairs(take(PROMPTS, rows), ("depth", "pose"), size=(40, 30), **options)


def refine(rows: list[int], options: dict[str, Any]) -> list[Generated]:
    return tiny_model().refine({"pose": take(POSES, rows)}, take(PROMPTS, rows), **options)


def inpaint(rows: list[int], options: dict[str, Any]) -> list[Generated]:
    return tiny_model().inpaint(
        take(IMAGES, rows), take(MASKS, rows), take(PROMPTS, rows), condition="depth",
        conditions={"pose": take(POSES, rows)}, **options,
    )  # fmt: skip


def check_same(result: Any, other: Any) -> None:
    if isinstance(result, np.ndarray):
        assert np.abs(result - other).max() <= TOLERANCE
        return
    assert np.abs(np.asarray(result.image).astype(int) - np.asarray(other.image)).max() <= 1
    for name, values in result.conditions.items():
        assert np.abs(values - other.conditions[name]).max() <= TOLERANCE


MODES = [estimate, estimate_ensemble, synthesize, synthesize_from_two, generate_pairs, refine, inpaint]


QUICK = [(mode, SAMPLERS[1]) for mode in MODES] + [
    (mode, options) for mode in (estimate, refine) for options in SAMPLERS
]
CASES = [
    pytest.param(
        mode, options, id="-".join([mode.__name__, *map(str, options.values())]),
        marks=[] if (mode, options) in QUICK else [pytest.mark.slow],
    )
    for mode in MODES
    for options in SAMPLERS
]  # fmt: skip


@pytest.mark.parametrize(("mode", "options"), CASES)
def test_a_result_belongs_to_its_row(mode: Callable[..., list], options: dict[str, Any]) -> None:
    def run(rows: list[int], batch_size: int | None = None) -> dict[int, Any]:
        given = {"num_inference_steps": 2, "seeds": take(SEEDS, rows), "batch_size": batch_size} | options
        return dict(zip(rows, mode(rows, given), strict=True))

    together = run(ROWS)
    alone_and_shuffled = run(ROWS[::-1], batch_size=1)
    among_others = run([4, 3, 0])
    for row in ROWS:
        check_same(together[row], alone_and_shuffled[row])
    for row, result in among_others.items():
        check_same(together[row], result)
