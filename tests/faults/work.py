"""The real command on a real input: started, watched, and run again until it is done."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import psutil

from pipelines.storage.store import FILES
from tests.faults.tally import Tally, tally
from tests.support.inputs import picture, write_folder, write_parquet, write_tar
from tests.support.paths import PROJECT_ROOT
from tests.support.processes import descendants

COMMAND = (sys.executable, str(PROJECT_ROOT / "tests" / "support" / "run_fake_job.py"))
"""jobs/estimate_depth.py with a stand-in for its model."""
SAMPLES, SIZE_PX = 48, 128
TAR, PARQUET, BROKEN_KEY = "a.tar", "b.parquet", "tar0001"
RUNS_AT_MOST = 5
RUN_LIMIT_S = 420.0
START_UP_S = 12.0
"""About what Ray and the workers take to start; moments before the first mark are drawn from it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """An input, what must come of it, and how the command is run on it."""

    inputs: str
    output: str
    logs: Path
    pictures: Mapping[str, bytes]
    """By key: a row in data/ must hold its picture."""
    may_be_gone: frozenset[str] = frozenset()
    """Keys that the output may have or not."""
    chunk_size: int = 4
    delay_s: float = 0.1
    """Of the model, for each picture."""
    fails_while: str = ""
    """A file; while it is there, the model fails on a third of the samples."""
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """More of the command line."""

    @property
    def chunks(self) -> int:
        """About how many the input makes."""
        return len(self.pictures) // self.chunk_size

    def marks(self) -> int:
        """Finished chunks."""
        return len(FILES.list_uris(f"{self.output}/_chunks/done"))

    def tally(self) -> Tally:
        """What the output holds against what it must hold."""
        return tally(self.output, self.pictures, self.pictures, self.may_be_gone)


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


def write_inputs(folder: Path, samples: int = SAMPLES, size_px: int = SIZE_PX) -> dict[str, bytes]:
    """A tar, a Parquet file and a folder of pictures, one of them broken; returns the pictures by key."""
    tar = {f"tar{n:04d}": picture(n, (size_px, size_px)) for n in range(samples // 2)}
    tar[BROKEN_KEY] = tar[BROKEN_KEY][:400]
    rows = {f"row{n:04d}": picture(n, (size_px, size_px)) for n in range(samples // 3)}
    files = {f"c/file{n:04d}.jpg": picture(n, (size_px, size_px)) for n in range(samples // 6)}
    write_tar(folder / TAR, [(f"{key}.jpg", content) for key, content in tar.items()])
    write_parquet(folder / PARQUET, {"key": [*rows], "image": [*rows.values()]})
    write_folder(folder, files)
    return {**tar, **rows, **files}


def local_work(folder: Path, *, samples: int = SAMPLES, size_px: int = SIZE_PX, chunk_size: int = 4) -> Work:
    """Work on the local disk, its input written now."""
    pictures = write_inputs(folder / "in", samples, size_px)
    inputs, output = str(folder / "in"), str(folder / "out")
    return Work(inputs=inputs, output=output, logs=folder, pictures=pictures, chunk_size=chunk_size)


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
        wait_for_marks(work, process, 0, random.uniform(0, START_UP_S))
    else:
        marks = random.randrange(1, work.chunks * 3 // 4)
        wait_for_marks(work, process, marks, random.uniform(0, work.chunk_size * work.delay_s))


def wait_for_marks(work: Work, process: "subprocess.Popen[bytes]", marks: int, then_s: float) -> None:
    """Return when so many chunks are finished, and a while later. Raises TooLateError when the job ended before."""
    while work.marks() < marks:
        if process.poll() is not None:
            raise TooLateError
        time.sleep(0.05)
    wait(process, then_s)
    if process.poll() is not None:
        raise TooLateError


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Return then, or when the process ends before."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def finish(
    work: Work,
    process: "subprocess.Popen[bytes]",
    notes: Mapping[str, float] | None = None,
    *,
    fewest_runs: int = 1,
) -> Outcome:
    """Wait for the run's end, then run the same command until it says it is done; count."""
    codes = until_done(work, [exit_code(process)], fewest_runs)
    return Outcome(tally=work.tally(), exit_codes=tuple(codes), notes=notes or {})


def until_done(work: Work, codes: Sequence[int] = (), fewest_runs: int = 1) -> list[int]:
    """Run the command until it says it is done; the exit codes of all its runs, of which `codes` were before."""
    codes = list(codes)
    while (not codes or codes[-1] != 0 or len(codes) < fewest_runs) and len(codes) < RUNS_AT_MOST:
        with running(work) as again:
            codes.append(exit_code(again))
    return codes


def retry_errors(work: Work, outcome: Outcome) -> Outcome:
    """The same command once more, with --retry-errors: the outcome of all runs."""
    with running(with_options(work, "--retry-errors")) as process:
        code = exit_code(process)
    return replace(outcome, tally=work.tally(), exit_codes=(*outcome.exit_codes, code))


def with_options(work: Work, *options: str) -> Work:
    """The same work, with more options of the command line."""
    return replace(work, options=(*work.options, *options))


def exit_code(process: "subprocess.Popen[bytes]") -> int:
    """Wait for it. Raises TimeoutExpired for a run that hangs."""
    return process.wait(RUN_LIMIT_S)


def _start(work: Work) -> "subprocess.Popen[bytes]":
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    fake = [str(work.delay_s), *(["--fails-while", work.fails_while] if work.fails_while else [])]
    options = ["--input", work.inputs, "--output", work.output, "--chunk-size", str(work.chunk_size), *work.options]
    with (work.logs / f"log-{time.time_ns()}").open("wb") as log:
        return subprocess.Popen(
            [*COMMAND, *fake, *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**inherited, **work.environment},
            start_new_session=True,
        )
