"""What counts as the time of a model: from the end of the first micro-batch, and shapes that are not new."""

import time
from typing import Any

import pytest

from pipelines.stages.device_queue import DeviceQueue, DeviceUse
from pipelines.stages.model_time import ModelTime

SIZE = (64, 96)


def without_actor(time_: ModelTime) -> dict[str, Any]:
    return {name: value for name, value in time_.report().items() if name != "actor"}


def test_nothing_is_known_before_the_first_batch_has_ended() -> None:
    model = ModelTime(clock=lambda: 5.0)
    model.worked(10.0, 70.0)  # compiling
    assert without_actor(model) == {"passed_s": 0.0, "busy_s": 0.0, "rows": 0, "rows_s": 0.0}


def test_the_first_batch_warms_up_and_waiting_is_not_busy() -> None:
    model = ModelTime(clock=lambda: 0.0)
    model.worked(0.0, 60.0)
    model.computed(SIZE, 8, 60.0)
    for start_s in (61.0, 63.0, 65.0):
        model.worked(start_s, start_s + 1.0)
        model.computed(SIZE, 8, 1.0)
    assert without_actor(model) == {"passed_s": 6.0, "busy_s": 3.0, "rows": 24, "rows_s": 3.0}


def test_the_first_batch_of_a_shape_is_busy_but_says_nothing_about_the_rate() -> None:
    model = ModelTime(clock=lambda: 0.0)
    at_s = 0.0
    for size, rows, device_s in ((SIZE, 8, 9.0), (SIZE, 8, 2.0), (SIZE, 3, 50.0), ((96, 64), 8, 30.0), (SIZE, 3, 1.0)):
        model.worked(at_s, at_s + device_s)
        model.computed(size, rows, device_s)
        at_s += device_s
    assert without_actor(model) == {"passed_s": 83.0, "busy_s": 83.0, "rows": 11, "rows_s": 3.0}


def test_a_queue_measures_its_thread() -> None:
    queue = DeviceQueue()
    for _ in range(3):
        use = DeviceUse(0)
        with queue.used_by(use):
            queue.run(lambda: time.sleep(0.02))
        queue.time.computed(SIZE, 4, use.device_s)
        time.sleep(0.02)
    report = queue.time.report()
    assert report["rows"] == 8 and report["rows_s"] == pytest.approx(report["busy_s"], abs=0.01)
    assert 0.04 <= report["busy_s"] < report["passed_s"] - 0.015


def test_two_processes_are_two_actors() -> None:
    assert ModelTime().report()["actor"] != ModelTime().report()["actor"]
