"""Images of a dataset have few working sizes, of nearly one area and the shape of the image."""

from __future__ import annotations

import numpy as np
import pytest

from unicon.working_sizes import working_size, working_sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((1, 1), (512, 512)), ((640, 480), (576, 448)), ((480, 640), (448, 576))],
)
def test_working_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert working_size(size, area=512**2, multiple=64) == expected


def test_working_sizes_are_few_and_near() -> None:
    found = set()
    for aspect in np.geomspace(0.25, 4, 200):
        size = working_size((int(1000 * aspect), 1000), area=512**2, multiple=64)
        found.add(size)
        assert size[0] % 64 == 0 and size[1] % 64 == 0
        assert abs(np.log(size[0] / size[1] / aspect)) < 0.25
        assert abs(np.log(size[0] * size[1] / 512**2)) < 0.25
    assert len(found) < 20
    assert working_size((100_000, 10), area=512**2, multiple=64) == (1024, 256)
    with pytest.raises(ValueError, match="positive"):
        working_size((0, 5), area=512**2, multiple=64)


@pytest.mark.parametrize(("side_px", "multiple", "count"), [(512, 64, 17), (768, 64, 25), (128, 16, 17)])
def test_aspect_buckets_are_few(side_px: int, multiple: int, count: int) -> None:
    """At the native sizes of Stable Diffusion 1.x and 2.x, and a small model: compiled code is made for each."""
    buckets = working_sizes(side_px**2, multiple)
    assert len(buckets) == len(set(buckets)) == count
    assert {(height, width) for width, height in buckets} == set(buckets)
