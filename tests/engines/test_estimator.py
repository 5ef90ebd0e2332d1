"""The interface of the jobs around a model: long images, turns on the device, one condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.estimator import EngineEstimator, MapEngine, squeezed


class Brightness(MapEngine):
    """Returns the brightness of each image, in three steps."""

    def prepare(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        assert all(max(image.size) <= 4 * min(image.size) for image in images)
        return [image.convert("L") for image in images]

    def compute(self, prepared: Sequence[Image.Image], seeds: Sequence[int]) -> list[np.ndarray]:
        return [np.asarray(image, np.float32) for image in prepared]

    def finish(self, computed: Sequence[np.ndarray], images: Sequence[Image.Image]) -> list[np.ndarray]:
        return [values / 255 for values in computed]


def test_only_the_middle_step_takes_turns_on_the_device() -> None:
    calls: list[int] = []

    def run(call: Any) -> Any:
        calls.append(len(calls))
        result = call()
        assert result[0].max() > 1, "maps are finished outside"
        return result

    engine = EngineEstimator(engine=Brightness(), kind="edge")
    shared = engine.in_turns(run)
    image = Image.new("RGB", (8, 6), (51, 51, 51))
    assert np.allclose(shared.estimate([image], "name", seeds=[0])[0], 0.2) and calls == [0]
    assert engine.run is None and shared.adapter_kind("any").name == "edge"
    (by_name,) = engine.estimate([image], ("name",), seeds=[0])
    assert by_name["name"].shape == (6, 8)


@pytest.mark.parametrize(("size", "expected"), [((800, 20), (252, 63)), ((20, 800), (63, 252)), ((40, 160), (40, 160))])
def test_long_images_are_squeezed_and_their_maps_are_not(size: tuple[int, int], expected: tuple[int, int]) -> None:
    engine = EngineEstimator(engine=Brightness(), kind="depth")
    assert squeezed(size) == engine.working_size(size) == expected
    assert engine.estimate([Image.new("RGB", size)], "depth", seeds=[0])[0].shape == size[::-1]


def test_one_condition_from_one_view() -> None:
    engine = EngineEstimator(engine=Brightness(), kind="depth")
    for arguments, options in ((("depth", "edge"), {}), ("depth", {"num_views": 2})):
        with pytest.raises(ValueError, match="one condition from one view"):
            engine.estimate([], arguments, seeds=[], **options)
