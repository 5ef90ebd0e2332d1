"""The real command on a real input: started, observed, and run again until it is done."""

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
from tests.support.inputs import encoded_image, write_folder, write_parquet, write_tar
from tests.support.paths import PROJECT_ROOT
from tests.support.processes import descendants

COMMAND = (sys.executable, str(PROJECT_ROOT / "tests" / "support" / "run_fake_job.py"))
"""jobs/estimate_depth.py with a fake model."""
SAMPLES, SIZE_PX = 48, 128
TAR, PARQUET, BROKEN_KEY = "a.tar", "b.parquet", "tar0001"
RUNS_AT_MOST = 5
RUN_LIMIT_S = 420.0
START_UP_S = 12.0
"""Approximate start time of Ray and the workers, from which moments before the first mark are drawn."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """An input, its expected result, and how the command is run on it."""

    inputs: str
    output: str
    logs: Path
    images: Mapping[str, bytes]
    """Images by key; a row in data/ must hold the image of its key."""
    may_be_gone: frozenset[str] = frozenset()
    """Keys that may be missing from the output."""
    chunk_size: int = 4
    delay_s: float = 0.1
    """Time that the model takes for each image."""
    engines: int = 1
    """Number of models; with two, the command builds a corpus."""
    fails_while: str = ""
    """A file; while it exists, the model fails on a third of the samples."""
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """Additional options of the command."""

    @property
    def chunks(self) -> int:
        """Return the approximate number of chunks."""
        return len(self.images) // self.chunk_size

    def marks(self) -> int:
        """Return the number of finished chunks."""
        return len(FILES.list_uris(f"{self.output}/_chunks/done"))

    def tally(self) -> Tally:
        """Compare the output with what it must hold."""
        return tally(self.output, self.images, self.images, self.may_be_gone)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a round whose command was run until it was done."""

    tally: Tally
    exit_codes: tuple[int, ...]
    """Exit codes of all runs; the last one is 0 if the work is done."""
    notes: Mapping[str, float] = field(default_factory=dict)
    """Numbers that describe the fault."""

    @property
    def is_clean(self) -> bool:
        """Return whether the work is done and every key is there exactly once, in complete files."""
        return self.tally.is_clean and self.exit_codes[-1] == 0


class TooLateError(Exception):
    """Raised if the job ended before the fault, so that the round proves nothing."""


def write_inputs(folder: Path, samples: int = SAMPLES, size_px: int = SIZE_PX) -> dict[str, bytes]:
    """Write a tar, a Parquet file and a folder of images, one of which is broken, and return the images by key."""
    tar = {f"tar{n:04d}": encoded_image(n, (size_px, size_px)) for n in range(samples // 2)}
    tar[BROKEN_KEY] = tar[BROKEN_KEY][:400]
    rows = {f"row{n:04d}": encoded_image(n, (size_px, size_px)) for n in range(samples // 3)}
    files = {f"c/file{n:04d}.jpg": encoded_image(n, (size_px, size_px)) for n in range(samples // 6)}
    write_tar(folder / TAR, [(f"{key}.jpg", content) for key, content in tar.items()])
    write_parquet(folder / PARQUET, {"key": [*rows], "image": [*rows.values()]})
    write_folder(folder, files)
    return {**tar, **rows, **files}


def local_work(folder: Path, *, samples: int = SAMPLES, size_px: int = SIZE_PX, chunk_size: int = 4) -> Work:
    """Create work on the local disk and write its input."""
    images = write_inputs(folder / "in", samples, size_px)
    inputs, output = str(folder / "in"), str(folder / "out")
    return Work(inputs=inputs, output=output, logs=folder, images=images, chunk_size=chunk_size)


@contextmanager
def running(work: Work) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the command, and end it and its descendants when the context is left."""
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
    """Wait for a random moment of the run; with `start_up`, one time in four before its first chunk.

    Raises:
        TooLateError: The job ended before.
    """
    if start_up and random.random() < 0.25:
        wait_for_marks(work, process, 0, random.uniform(0, START_UP_S))
    else:
        marks = random.randrange(1, work.chunks * 3 // 4)
        wait_for_marks(work, process, marks, random.uniform(0, work.chunk_size * work.delay_s))


def wait_for_marks(work: Work, process: "subprocess.Popen[bytes]", marks: int, then_s: float) -> None:
    """Wait until `marks` chunks are finished, and then another `then_s` seconds.

    Raises:
        TooLateError: The job ended before.
    """
    while work.marks() < marks:
        if process.poll() is not None:
            raise TooLateError
        time.sleep(0.05)
    wait(process, then_s)
    if process.poll() is not None:
        raise TooLateError


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for some seconds, or until the process ends."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def finish(
    work: Work,
    process: "subprocess.Popen[bytes]",
    notes: Mapping[str, float] | None = None,
    *,
    fewest_runs: int = 1,
) -> Outcome:
    """Wait for the end of the run, run the same command until it is done, and count the rows."""
    codes = until_done(work, [exit_code(process)], fewest_runs)
    return Outcome(tally=work.tally(), exit_codes=tuple(codes), notes=notes or {})


def until_done(work: Work, codes: Sequence[int] = (), fewest_runs: int = 1) -> list[int]:
    """Run the command until it is done, and return the exit codes of all runs, which begin with `codes`."""
    codes = list(codes)
    while (not codes or codes[-1] != 0 or len(codes) < fewest_runs) and len(codes) < RUNS_AT_MOST:
        with running(work) as again:
            codes.append(exit_code(again))
    return codes


def retry_errors(work: Work, outcome: Outcome) -> Outcome:
    """Run the same command once more, with --retry-errors, and return the outcome of all runs."""
    with running(with_options(work, "--retry-errors")) as process:
        code = exit_code(process)
    return replace(outcome, tally=work.tally(), exit_codes=(*outcome.exit_codes, code))


def with_options(work: Work, *options: str) -> Work:
    """Return the same work with additional options."""
    return replace(work, options=(*work.options, *options))


def exit_code(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the exit code.

    Raises:
        subprocess.TimeoutExpired: The run hangs.
    """
    return process.wait(RUN_LIMIT_S)


def _start(work: Work) -> "subprocess.Popen[bytes]":
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    fake = [str(work.delay_s), "--engines", str(work.engines)]
    fake += ["--fails-while", work.fails_while] if work.fails_while else []
    options = ["--input", work.inputs, "--output", work.output, "--chunk-size", str(work.chunk_size), *work.options]
    with (work.logs / f"log-{time.time_ns()}").open("wb") as log:
        return subprocess.Popen(
            [*COMMAND, *fake, *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**inherited, **work.environment},
            start_new_session=True,
        )
