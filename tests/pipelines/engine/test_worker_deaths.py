"""Workers that die or hang, with a real Ray: the sample to blame becomes an error, the rest arrives exactly once."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.crashing_tasks import BLUE, GREEN, RED, WHITE, crashing_task, receipts
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, samples, write_tar
from tests.support.paths import PROJECT_ROOT


def colored(number: int, color: tuple[int, int, int]) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), color).save(buffer, "PNG")
    return f"{number:05d}.png", buffer.getvalue()


def with_colors(count: int, colors: dict[int, tuple[int, int, int]]) -> list[tuple[str, bytes]]:
    members: list[tuple[str, bytes]] = []
    for number in range(count):
        members += [colored(number, colors[number])] if number in colors else samples(1, first=number)
    return members


def errors(root: Path) -> dict[str, tuple[str, str]]:
    """Key -> stage and reason."""
    return {str(row["key"]): (str(row["stage"]), str(row["reason"])) for row in all_rows(root / "out", "errors")}


def keys(root: Path) -> list[str]:
    return sorted(str(row["key"]) for folder in ("data", "errors") for row in all_rows(root / "out", folder))


def numbered(count: int) -> list[str]:
    return [f"{number:05d}" for number in range(count)]


def test_samples_that_kill_their_workers_become_errors(ray_cluster: None, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", with_colors(10, {8: RED}))
    task = crashing_task(kills_reading=("00001",), kills_writing=("00003",))
    done = list(receipts(tmp_path, 5, task, FakeDepth(die_on_red=True)))
    assert sorted((receipt["ok"], receipt["bad"]) for receipt in done) == [(3, 2), (4, 1)]
    died = "the worker process died on this sample (3 attempts)"
    assert errors(tmp_path) == {"00001": ("read", died), "00003": ("publish", died), "00008": ("model", died)}
    assert keys(tmp_path) == numbered(10)


@pytest.mark.slow
def test_deaths_that_no_sample_causes_cost_no_sample(ray_cluster: None, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(4))
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    (receipt,) = receipts(tmp_path, 4, crashing_task(), FakeDepth(dies_twice_in=str(deaths)))
    assert (receipt["ok"], receipt["bad"], len(list(deaths.iterdir()))) == (4, 0, 2)


@pytest.mark.slow
def test_a_model_that_kills_its_process_while_loading_stops_the_run(ray_cluster: None, tmp_path: Path) -> None:
    from pipelines.errors import FlowError

    write_tar(tmp_path / "in" / "a.tar", samples(2))
    with pytest.raises(FlowError, match="died 3 times while it loaded the model"):
        list(receipts(tmp_path, 2, crashing_task(), FakeDepth(die_loading=True), failed_chunks_allowed=10))


@pytest.mark.slow
def test_hanging_raising_and_breaking_samples_become_errors(ray_cluster: None, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", with_colors(12, {1: GREEN, 5: BLUE, 10: WHITE}))
    model = FakeDepth(hang_on_green=True, raise_on_blue=True, break_on_white=True)
    done = list(receipts(tmp_path, 4, crashing_task(), model, chunk_timeout_s=12.0, actors=2))
    assert sum(receipt["ok"] for receipt in done) == 9
    assert errors(tmp_path) == {
        "00001": ("model", "timed out after 12 s (3 attempts)"),
        "00005": ("model", "RuntimeError: the size of tensor a must match the size of tensor b"),
        "00010": ("model", "RuntimeError: CUDA error: device-side assert triggered (3 attempts)"),
    }
    assert keys(tmp_path) == numbered(12)


@pytest.mark.slow
def test_a_sample_that_stops_its_process_times_out(ray_cluster: None, tmp_path: Path) -> None:
    class Stopping(FakeDepth):
        """Its process is stopped, without dying, by a green image."""

        def _misbehave(self, pixels: set[Any]) -> None:
            if GREEN in pixels:
                os.kill(os.getpid(), signal.SIGSTOP)

    write_tar(tmp_path / "in" / "a.tar", with_colors(8, {1: GREEN}))
    done = list(receipts(tmp_path, 4, crashing_task(), Stopping(), chunk_timeout_s=6.0))
    assert sum(receipt["ok"] for receipt in done) == 7
    assert errors(tmp_path) == {"00001": ("model", "timed out after 6 s (3 attempts)")}
    assert keys(tmp_path) == numbered(8)


@pytest.mark.slow
def test_a_worker_that_dies_on_everything_fails_its_chunks(ray_cluster: None, tmp_path: Path) -> None:
    from pipelines.errors import FlowError

    write_tar(tmp_path / "in" / "a.tar", with_colors(8, {number: RED for number in range(8)}))
    with pytest.raises(FlowError, match="lost 3 samples in a row and completed none"):
        list(receipts(tmp_path, 8, crashing_task(), FakeDepth(die_on_red=True)))
    assert not (tmp_path / "out" / "errors").exists()


@pytest.mark.slow
def test_a_lost_node_costs_no_sample(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "tests.support.crashing_tasks", str(tmp_path)]
    process = subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=400)
    lost = json.loads(next(line for line in process.stdout.splitlines() if line.startswith("{")))
    assert sorted(lost["machines"]) == [1, 2], "the node was lost"
    assert lost["killed"], "with the actor that worked there"
    assert len(lost["chunks"]) == len(set(lost["chunks"])) == 12
    assert lost["bad"] == 0
    assert keys(tmp_path) == numbered(48)
