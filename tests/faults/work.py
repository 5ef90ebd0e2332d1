"""The real command on a real input: started, watched, and run again until it is done."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import psutil

from pipelines import storage
from tests.faults.tally import Tally, tally
from tests.inputs import picture, write_folder, write_parquet, write_tar
from tests.processes import descendants

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, str(ROOT / "tests" / "run_fake_job.py"))
"""jobs/estimate_depth.py with a stand-in for its model."""
RUNS_AT_MOST = 5
RUN_LIMIT_S = 420.0
START_UP_S = 8.0
"""About what Ray and the workers take to start; moments before the first mark are drawn from it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """An input, what must come of it, and how the command is run on it."""

    inputs: str
    output: str
    logs: Path
    keys: frozenset[str]
    chunk_size: int = 4
    delay_s: float = 0.1
    """Of the model, for each picture."""
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """More of the command line."""

    @property
    def chunks(self) -> int:
        """About how many the input makes."""
        return len(self.keys) // self.chunk_size

    def marks(self) -> int:
        """Finished chunks."""
        return len(storage.list_files(storage.join(self.output, "_chunks", "done")))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is left of a round when the command has been run until it was done."""

    tally: Tally
    exit_codes: tuple[int, ...]
    """Of every run; the last is 0 when the work is done."""
    notes: Mapping[str, float] = field(default_factory=dict)
    """Numbers that show what the fault did."""

    @property
    def is_clean(self) -> bool:
        """Done, every key exactly once, in whole files."""
        return self.tally.is_clean and self.exit_codes[-1] == 0


class TooLateError(Exception):
    """The job was done before the fault could strike: the round says nothing."""


def write_inputs(folder: Path, samples: int = 72, size_px: int = 192) -> frozenset[str]:
    """A tar, a Parquet file and a folder of pictures, one of them broken; returns the keys."""
    tar, rows, files = samples // 2, samples // 3, samples // 6
    content = {f"tar{n:04d}": picture(n, (size_px, size_px)) for n in range(tar)}
    content["tar0001"] = content["tar0001"][:400]
    write_tar(folder / "a.tar", [(f"{key}.jpg", stored) for key, stored in content.items()])
    keys = [f"row{n:04d}" for n in range(rows)]
    write_parquet(folder / "b.parquet", {"key": keys, "image": [picture(n, (size_px, size_px)) for n in range(rows)]})
    names = {f"c/file{n:04d}.jpg": picture(n, (size_px, size_px)) for n in range(files)}
    write_folder(folder, names)
    return frozenset([*content, *keys, *names])


def local_work(folder: Path, *, samples: int = 72, size_px: int = 192, chunk_size: int = 4) -> Work:
    """Work on the local disk, its input written now."""
    keys = write_inputs(folder / "in", samples, size_px)
    return Work(inputs=str(folder / "in"), output=str(folder / "out"), logs=folder, keys=keys, chunk_size=chunk_size)


@contextmanager
def running(work: Work) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the command; whatever it started is ended on leaving, should it be there still."""
    process = _start(work)
    try:
        yield process
    finally:
        started = descendants(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()
        _, alive = psutil.wait_procs(started, timeout=15)
        for left in alive:
            with suppress(psutil.NoSuchProcess):
                left.kill()


def wait_for_moment(random: Random, work: Work, process: "subprocess.Popen[bytes]", *, start_up: bool = False) -> None:
    """Return at a random moment of the run; with `start_up` one time in four before its first chunk.

    Raises:
        TooLateError: the job ended before that.
    """
    if start_up and random.random() < 0.25:
        marks, then_s = 0, random.uniform(0, START_UP_S)
    else:
        marks, then_s = random.randrange(1, work.chunks * 3 // 4), random.uniform(0, work.chunk_size * work.delay_s)
    while work.marks() < marks:
        if process.poll() is not None:
            raise TooLateError
        time.sleep(0.05)
    time.sleep(then_s)
    if process.poll() is not None:
        raise TooLateError


def finish(work: Work, process: "subprocess.Popen[bytes]", notes: Mapping[str, float] | None = None) -> Outcome:
    """Wait for the run's end, then run the same command until it says it is done; count."""
    codes = [_exit_code(process)]
    while codes[-1] != 0 and len(codes) < RUNS_AT_MOST:
        with running(work) as again:
            codes.append(_exit_code(again))
    return Outcome(tally=tally(work.output, work.keys), exit_codes=tuple(codes), notes=notes or {})


def retry_errors(work: Work, outcome: Outcome) -> Outcome:
    """The same command once more, with --retry-errors: the outcome of all runs."""
    with running(replace(work, options=(*work.options, "--retry-errors"))) as process:
        code = _exit_code(process)
    return replace(outcome, tally=tally(work.output, work.keys), exit_codes=(*outcome.exit_codes, code))


def _start(work: Work) -> "subprocess.Popen[bytes]":
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    options = ["--input", work.inputs, "--output", work.output, "--chunk-size", str(work.chunk_size), *work.options]
    with (work.logs / f"log-{time.time_ns()}").open("wb") as log:
        return subprocess.Popen(
            [*COMMAND, str(work.delay_s), *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**inherited, **work.environment},
            start_new_session=True,
        )


def _exit_code(process: "subprocess.Popen[bytes]") -> int:
    """Raises TimeoutExpired for a run that hangs."""
    return process.wait(RUN_LIMIT_S)
