"""The limit of GPU time: no chunk begins that may exceed it, and those that have begun are finished."""

import json
import math
from pathlib import Path

import pytest

from jobs import _cli, estimate
from pipelines.engine.gpu_meter import GpuMeter, GpuTime
from pipelines.engine.ledger import Ledger
from pipelines.errors import SettingError
from pipelines.runs.placement import choose_resources
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import samples, write_tar
from tests.support.run_fake_job import run


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(clock: Clock, limit_s: float = math.inf) -> GpuMeter:
    return GpuMeter(limit_s=limit_s, clock=clock)


def test_time_counts_from_the_start_of_loading_of_each_actor(clock: Clock) -> None:
    used = meter(clock)
    clock.now_s = 100.0  # waiting for a machine
    used.hold("a", 0.5)
    clock.now_s = 110.0
    used.hold("b", 0.5)
    used.hold("a", 0.5)  # its process has died and loads again
    clock.now_s = 120.0
    assert used.used_s == 0.5 * (20 + 10)
    used.hold("of another model", 2.0)
    clock.now_s = 130.0
    assert used.used_s == 0.5 * (30 + 20) + 2.0 * 10


def test_a_chunk_begins_only_if_the_slowest_one_so_far_would_fit(clock: Clock) -> None:
    limited = meter(clock, limit_s=100.0)
    assert limited.begin("1", "a", 1.0)
    clock.now_s = 30.0
    limited.end("1", succeeded=True)
    assert limited.begin("2", "a", 1.0)
    clock.now_s = 65.0
    limited.end("2", succeeded=True)  # 35 s
    assert limited.begin("3", "a", 1.0)
    clock.now_s = 66.0
    assert not limited.begin("4", "a", 1.0) and limited.is_spent
    assert not limited.is_over, "chunk 3 is in progress"
    limited.end("3", succeeded=True)
    assert limited.is_over and limited.used_s <= 100.0


def test_two_actors_use_twice_the_time(clock: Clock) -> None:
    limited = meter(clock, limit_s=100.0)
    assert limited.begin("1", "a", 1.0) and limited.begin("2", "b", 1.0)
    clock.now_s = 40.0
    limited.end("1", succeeded=True)
    assert not limited.begin("3", "a", 1.0)


def test_a_chunk_whose_worker_has_died_does_not_begin_again(clock: Clock) -> None:
    limited = meter(clock, limit_s=10.0)
    assert limited.begin("1", "a", 1.0)
    clock.now_s = 11.0
    assert not limited.begin("1", "a", 1.0) and limited.is_over


def test_the_ledger_tells_the_meter(clock: Clock) -> None:
    ledger = Ledger(clock=clock, meter=meter(clock, limit_s=50.0))
    ledger.build_started("a", 1.0)
    clock.now_s = 10.0
    assert ledger.may_begin("chunk", "a", 1.0)
    for stage in ("model", "publish"):
        ledger.end(stage, "chunk", ledger.begin(stage, "chunk", "a", "node").number, succeeded=True)
    assert ledger.gpu_time() == (10.0, False)
    clock.now_s = 51.0
    assert not ledger.may_begin("next", "a", 1.0) and ledger.gpu_time() == (51.0, True)


def test_waves_share_the_limit() -> None:
    run_time = GpuTime(limit_s=100.0, used_s=70.0)
    assert run_time.meter().limit_s == 30.0
    assert math.isinf(GpuTime(used_s=70.0).meter().limit_s)


def test_a_run_without_gpus_refuses_the_limit() -> None:
    options = estimate.parse(["--input", "in", "--output", "out", "--max-gpu-hours", "2"])
    with pytest.raises(SettingError, match="--max-gpu-hours 2 limits the time on GPUs; this run uses none. Leave it"):
        choose_resources(_cli.request_of(options), {"CPU": 2.0}, can_grow=False)
    assert choose_resources(_cli.request_of(options), {"CPU": 2.0, "GPU": 1.0}, can_grow=False).actors == 1


def test_a_run_ends_at_its_limit_and_the_same_command_continues(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(60))
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--chunk-size", "4"]
    limit = ["--max-gpu-hours", "0.003"]  # 10.8 s, of which a chunk takes 1.2 or more
    assert run([*arguments, "--batch-size", "2", *limit], FakeDepth(delay_s=0.3)) == 1
    text = capsys.readouterr().err
    assert "stopped: the actors have held 0.0" in text and "chunks are not finished; the same command" in text
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out" / "_chunks" / "runs").iterdir())
    assert record["trouble"].endswith("another chunk might exceed --max-gpu-hours 0.003")
    assert record["done"]["ok"] < 60 and record["done"]["ok"] % 4 == 0, "chunks that have begun are finished"
    assert record["done"]["ok"] == record["counts"]["ok"] and record["done"]["failed_chunks"] == []
    assert run(arguments, FakeDepth(delay_s=0.01)) == 0
    assert "60 of 60 samples" in capsys.readouterr().err
