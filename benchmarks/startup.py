"""Fixed cost of a run: the command on one sample, with a no-op model, or with a real one (`--model mini`).

Besides times, which depend on what else the machine does, the CPU seconds of all processes of the run are measured:
those of the command, of the actor with the model, and of Ray and its other workers.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.fake_model import write_shards

ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.1
ACTOR = "MapWorker"
"""Part of the title of the process of an actor of Ray Data."""


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="a real depth model: `mini`, a folder or a hub id (default: a no-op model)")


def measure(options: Namespace) -> dict[str, Any]:
    """Return the medians over the rounds: seconds from the start of the command, and CPU seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_shards(Path(name) / "in", 1, 1, 64)
        rounds = [_one_run(folder, Path(name) / f"out-{number}", options.model) for number in range(options.rounds)]
        medians = {part: statistics.median(times[part] for times in rounds) for part in rounds[0]}
    return {**medians, "rounds": options.rounds, "model": options.model or "no-op"}


def _one_run(folder: Path, output: Path, model: str | None) -> dict[str, float]:
    program = ["jobs/estimate_depth.py", "--model", model] if model else ["-m", "benchmarks.fake_model_job", "0"]
    command = [sys.executable, *program, "--input", str(folder), "--output", str(output)]
    began = time.perf_counter()
    times: dict[str, float] = {}
    with (
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process,
        cpu_counted(process.pid) as cpu_s,
    ):
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("starting Ray"):
                times["planned_s"] = time.perf_counter() - began
            elif "chunks on" in line:
                times["ray_started_s"] = time.perf_counter() - began
            elif line.startswith("1 of 1 samples"):
                times["sample_published_and_ray_ended_s"] = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"the command ended with exit code {process.returncode}")
    return {**times, "command_s": time.perf_counter() - began, **cpu_s}


@contextmanager
def cpu_counted(pid: int) -> Iterator[dict[str, float]]:
    """Measure the CPU seconds of a process and its descendants in the body; the dictionary is filled at its end."""
    import psutil

    used: dict[psutil.Process, float] = {}
    titles: dict[psutil.Process, str] = {}
    ended = threading.Event()
    command = psutil.Process(pid)

    def poll() -> None:
        known = {command}
        while not ended.wait(POLL_S):
            for process in list(known):
                with suppress(psutil.Error):
                    known.update(process.children(recursive=True))
                    used[process] = sum(process.cpu_times()[:2])
                    titles[process] = titles.get(process, "") + " ".join(process.cmdline())

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    found: dict[str, float] = {}
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        actor_s = sum(seconds for process, seconds in used.items() if ACTOR in titles.get(process, ""))
        whole_s = sum(used.values())
        command_s = used.get(command, 0.0)
        found |= {"command_cpu_s": command_s, "actor_cpu_s": actor_s, "ray_cpu_s": whole_s - actor_s - command_s}
