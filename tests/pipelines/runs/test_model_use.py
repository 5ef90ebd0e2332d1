"""What the receipts of actors say about the models of a run, and the forecast from it."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.engine.resources import Resources
from pipelines.runs.model_use import MAX_POINTS, History, ModelUse, duration, number
from pipelines.stages.publish import PublishRows
from tests.support.in_process import World, keys, tar


def receipt(actor: str, passed_s: float, busy_s: float, rows: int, **more: Any) -> dict[str, Any]:
    return {"model": {"actor": actor, "passed_s": passed_s, "busy_s": busy_s, "rows": rows, "rows_s": busy_s, **more}}


def test_the_latest_report_of_every_actor_counts_in_any_order() -> None:
    use = ModelUse(resources=Resources(actors=2, gpus_per_actor=1))
    assert (use.busy_share, use.rows_per_s, use.forecast(100)) == (None, None, None)
    use.add({"ok": 4})  # a chunk of another version, or without rows
    for each in (receipt("a", 10, 8, 80), receipt("b", 10, 6, 60), receipt("a", 5, 5, 50)):
        use.add(each)
    assert (use.busy_share, use.rows_per_s) == (0.7, 20.0)


def test_the_forecast_gives_time_and_gpu_hours() -> None:
    use = ModelUse(resources=Resources(actors=8, gpus_per_actor=1.0))
    use.add({**receipt("a", 10, 10, 100), "gpu_s": 7200.0})
    expected = "the models compute 80.0 samples/s: the rest takes about 3 h 20 min, 26.7 GPU hours on 8 GPUs"
    assert use.forecast(960_000) == use.forecast(960_000, max_gpu_hours=29) == expected
    assert use.forecast(960_000, max_gpu_hours=28) == f"{expected}; --max-gpu-hours 28 ends the run before that"


def test_the_forecast_on_cpus_gives_the_time_alone() -> None:
    use = ModelUse(resources=Resources(actors=1))
    use.add(receipt("a", 10, 10, 5))
    assert use.forecast(20) == "the models compute 0.5 samples/s: the rest takes about 40 s on 1 actor"


def test_of_several_engines_the_slowest_sets_the_rate() -> None:
    own = {"model edge": Resources(actors=2), "model depth": Resources(actors=1, gpus_per_actor=0.5)}
    use = ModelUse(resources=Resources(actors=3, by_stage=own))
    edge = {**receipt("a", 10, 5, 100), "device_s": 4.0, "batch_size": 8}
    use.add({"engines": {"model edge": edge}})
    assert (use.slowest_name, use.rows_per_s, use.busy_share) == ("model edge", 40.0, 0.5)
    use.add({"engines": {"model edge": edge, "model depth": {**receipt("b", 10, 9, 90), "device_s": 3.0}}, "gpu_s": 5})
    assert (use.slowest_name, use.rows_per_s, use.busy_share) == ("model depth", 10.0, 0.9)
    assert (use.engines["model edge"].device_s, use.engines["model edge"].batch_size, use.gpus) == (8.0, 8, 0.5)
    assert use.forecast(3600) == (
        "model depth, the slowest, computes 10.0 samples/s: the rest takes about 6 min, 0.05 GPU hours on 0.5 GPUs"
    )


def test_compiling_is_summed_over_actors() -> None:
    use = ModelUse()
    assert use.compiling is None
    counts = {"mode": "auto", "shapes": 3, "compiled": 2, "from_cache": 0, "seconds": 90.0}
    use.add(receipt("a", 1, 1, 1, compile=counts))
    use.add(receipt("b", 1, 1, 1, compile={**counts, "from_cache": 2, "seconds": 9.5, "failure": "no compiler"}))
    assert use.compiling == {**counts, "from_cache": 2, "seconds": 99.5, "failure": "no compiler"}


def test_the_history_stays_short_and_spans_the_run() -> None:
    history = History()
    for second in range(10_000):
        history.add(float(second), second, None)
    assert MAX_POINTS // 2 <= len(history.points) <= MAX_POINTS
    assert history.points[-1][0] > 9_800 and history.points[0][0] < 300


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (3599, "1 h 0 min"), (12_000, "3 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(11_376_000, "11,376,000"), (3160.4, "3,160"), (26.67, "26.7"), (0.00467, "0.0047")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_a_run_tells_once_what_it_will_take_and_that_compiling_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, publish = World(tmp_path), PublishRows.__call__
    failure = {"mode": "auto", "shapes": 1, "compiled": 0, "from_cache": 0, "seconds": 0.0, "failure": "no compiler"}

    def reporting(stage: PublishRows, *arguments: Any) -> dict[str, Any]:
        return {**publish(stage, *arguments), **receipt("a", 10, 10, 20, compile=failure)}

    monkeypatch.setattr(PublishRows, "__call__", reporting)
    tar(world, keys(40))
    assert world.run() == 0
    told = [text for text in world.said if text.startswith(("the models compute", "compiling failed"))]
    assert told == [
        "compiling failed, so the models run uncompiled: no compiler",
        "the models compute 2.0 samples/s: the rest takes about 15 s on 1 actor",
    ]
