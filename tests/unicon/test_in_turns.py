"""Calls from several threads: the device is used by one at a time, and results are those of calls one by one."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from tests.support.tiny import tiny_model

ROWS = 6


def test_threads_that_share_a_model_get_the_results_of_calls_one_by_one() -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (20, 30 + row, 3), np.uint8)) for row in range(ROWS)]
    masks = [rng.random((20, 30 + row)).astype(np.float32) for row in range(ROWS)]
    model = tiny_model()
    used_by: list[str] = []
    device = ThreadPoolExecutor(1, "device")

    def run(call: Callable[[], Any]) -> Any:
        def noted() -> Any:
            used_by.append(threading.current_thread().name)
            return call()

        return device.submit(noted).result()

    def results(row: int, model: Any) -> tuple[np.ndarray, np.ndarray, int]:
        depth = model.estimate(images[row : row + 1], "depth", seeds=row, num_inference_steps=2)[0]
        options = {"condition": "depth", "seeds": row, "num_inference_steps": 2}
        painted = model.inpaint([images[row]], [masks[row]], ["a cat " * row], **options)[0]
        return depth, np.asarray(painted.image), painted.prompt_tokens_cut

    alone = [results(row, model) for row in range(ROWS)]
    assert used_by == []
    shared = model.in_turns(run)
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda row: results(row, shared), range(ROWS)))
    assert len({*used_by}) == 1 and used_by[0].startswith("device")
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1]) and one[2] == other[2]
    assert model.run_on_device(lambda: threading.current_thread()) is threading.current_thread(), "it did not change"
