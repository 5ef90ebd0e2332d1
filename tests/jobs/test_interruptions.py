"""After a kill, the same command leaves every sample exactly once, and no partial files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import estimate
from pipelines.runs.overlap import SILENCE_S, state_of
from pipelines.runs.status import read_status
from tests.support.fake_corpus import run_fake_corpus
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, encoded_image, samples, write_tar
from tests.support.paths import PROJECT_ROOT
from tests.support.run_fake_job import run

SCRIPT = str(PROJECT_ROOT / "tests" / "support" / "run_fake_job.py")


CANNY = ["--engine", "controlnet-aux:canny", "--engine-option", "detect_px=2048"]
"""A real engine other than UniCon, at a size at which a sample takes some time."""


def start(arguments: list[str], delay_s: float, log: Path, engines: int | str = 1) -> subprocess.Popen[bytes]:
    """Start the job with one or two fake models, or with a real engine."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [SCRIPT, str(delay_s), "--engines", str(engines)]
    if engines == "canny":
        command = [str(PROJECT_ROOT / "jobs" / "estimate.py"), *CANNY]
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *command, *arguments],
            stderr=file,
            stdout=file,
            env=environment,
            start_new_session=True,
        )


def records(output: Path) -> list[dict[str, Any]]:
    """Return the records of the runs, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(output.glob("_chunks/runs/*.json"))]


def wait_for_marks(output: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 600
    while len(list(output.glob("_chunks/done/*"))) < count:
        assert process.poll() is None, "the job ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish_with(engines: int | str, arguments: list[str], folder: Path) -> None:
    """Run the command to its end, and check the maps that only these engines make."""
    if engines == 1:
        assert run(arguments, FakeDepth()) == 0
    elif engines == "canny":
        assert estimate.main([*arguments, *CANNY]) == 0
        assert estimate.main([*arguments, *CANNY, "--output", str(folder / "undisturbed")]) == 0
        made = [
            {row["key"]: row["canny"] for row in all_rows(folder / name, "data")} for name in ("out", "undisturbed")
        ]
        assert made[0] == made[1] and made[0]
    else:
        assert run_fake_corpus(arguments, depth=FakeDepth(), edge=FakeDepth()) == 0
        assert all(row["depth"] and row["edge"] for row in all_rows(folder / "out", "data"))


@pytest.mark.parametrize(
    "engines", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param("canny", marks=pytest.mark.slow)]
)
def test_every_sample_exactly_once_after_sigterm_and_sigkill(
    ray_cluster: None, tmp_path: Path, engines: int | str
) -> None:
    broken = [(f"{number:05d}.jpg", encoded_image()[:400]) for number in range(0, 61, 4)]
    good = [samples(1, first=number) for number in range(61) if number % 4]
    write_tar(tmp_path / "in" / "a.tar", sorted([*broken, *(member for sample in good for member in sample)]))
    write_tar(tmp_path / "in" / "b.tar", samples(19, first=100))
    output = tmp_path / "out"
    arguments = ["--input", str(tmp_path / "in"), "--output", str(output), "--chunk-size", "4"]

    process = start(arguments, 0.2, tmp_path / "log1", engines)
    wait_for_marks(output, 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    told = (tmp_path / "log1").read_text()
    assert "of 80 samples are left; the same command processes them" in told
    assert "Traceback" not in told
    (record,) = records(output)
    assert (record["state"], record["exit_code"]) == ("interrupted", 143)
    assert record["counts"]["missing"] == 80 - record["counts"]["ok"] - record["counts"]["bad"] > 0

    marks = len(list(output.glob("_chunks/done/*")))
    process = start(arguments, 0.2, tmp_path / "log2", engines)
    wait_for_marks(output, marks + 2, process)
    process.kill()
    process.wait(60)
    assert len(list(output.glob("_chunks/done/*"))) < 20
    killed = records(output)[-1]
    assert (killed["state"], killed["ended"]) == ("running", None)
    heard = datetime.fromisoformat(killed["heard"])
    assert state_of(killed, heard + timedelta(seconds=1)) == "running"
    assert state_of(killed, heard + timedelta(seconds=SILENCE_S)) == "never ended"
    status = read_status(str(output))
    assert status.bad == status.reasons.counts.total() > records(output)[0]["done"]["bad"], (
        "what a killed run failed too"
    )

    finish_with(engines, arguments, tmp_path)
    found = Counter(str(row["key"]) for folder in ("data", "errors") for row in all_rows(output, folder))
    assert found == Counter(f"{number:05d}" for number in (*range(61), *range(100, 119)))
    (decoding,) = read_status(str(output)).reasons.counts.items()
    assert decoding[0].startswith("decode: ") and decoding[1] == len(broken)
    assert f'<td class="number">{len(broken)}</td><td><code>{decoding[0]}' in (output / "report.html").read_text()
    assert not [path for path in output.rglob("*.tmp")]


@pytest.mark.slow
def test_two_runs_at_once_with_two_chunk_sizes_are_harmless(ray_cluster: None, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [*samples(40), ("bad.jpg", b"x")])
    output = tmp_path / "out"
    arguments = ["--input", str(tmp_path / "in"), "--output", str(output), "--chunk-size", "4"]
    other = start([*arguments, "--chunk-size", "7"], 0.05, tmp_path / "log")
    assert run(arguments, FakeDepth(delay_s=0.05)) == 0
    assert other.wait(180) == 0
    found = Counter(str(row["key"]) for folder in ("data", "errors") for row in all_rows(output, folder))
    assert set(found.values()) == {1}
    assert len(found) == 41
    stops = {path.name.split("-")[-2] for path in output.glob("_chunks/done/*")}
    assert len(stops) == 41 // 4 + 1 or len(stops) == 41 // 7 + 1
