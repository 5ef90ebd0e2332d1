"""Signals to processes of a run: the command, the actor with the model, the readers and publishers."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import psutil

from tests.faults.tally import error_rows
from tests.faults.work import (
    Outcome,
    TooLateError,
    Work,
    finish,
    local_work,
    retry_errors,
    running,
    wait_for_moment,
)
from tests.support.processes import descendants, title

ACTOR = "ray::MapWorker"
ACTOR_AT_WORK = "ray::MapWorker(MapBatches(_Model)).submit"
CPU_WORKERS = ("ray::MapBatches(_Read)", "ray::MapBatches(_Publish)")
"""Titles that Ray gives the worker processes of the stages while they are working."""
CHUNK_TIMEOUT_S = 5.0
HANG_LIMIT_S = CHUNK_TIMEOUT_S + 50.0
"""Time after which a stopped process must have been ended."""


class StillThereError(Exception):
    """Raised if a hanging process was not ended."""


def driver_kill(folder: Path, random: Random) -> Outcome:
    """Send SIGKILL to the command at any moment after its start."""
    return _signal_driver(folder, random, signal.SIGKILL)


def driver_term(folder: Path, random: Random) -> Outcome:
    """Send SIGTERM to the command, as a scheduler does that reclaims the machine."""
    return _signal_driver(folder, random, signal.SIGTERM)


def actor_kill(folder: Path, random: Random) -> Outcome:
    """Send SIGKILL to the process that holds the model."""
    return _kill_worker(folder, random, lambda title: title.startswith(ACTOR))


def corpus_actor_kill(folder: Path, random: Random) -> Outcome:
    """Send SIGKILL to a process that holds one of the two models of a corpus."""
    return _kill_worker(folder, random, lambda title: title.startswith(ACTOR), engines=2)


def cpu_worker_kill(folder: Path, random: Random) -> Outcome:
    """Send SIGKILL to a process that is reading or publishing a chunk."""
    return _kill_worker(folder, random, lambda title: title.startswith(CPU_WORKERS))


def actor_hang(folder: Path, random: Random) -> Outcome:
    """Send SIGSTOP to the process that holds the model, so that it hangs for longer than --chunk-timeout.

    In some rounds its two successors are stopped too, on the first sample that they process. The samples that end up in
    errors/ because of this are retried at the end.
    """
    work = replace(local_work(folder, samples=24), delay_s=0.5, options=("--chunk-timeout", f"{CHUNK_TIMEOUT_S:g}"))
    with running(work) as process:
        wait_for_moment(random, work, process)
        hung_s = [_stop_one(process, random, ACTOR)]
        with suppress(TooLateError):
            for _ in range(random.choice((0, 0, 0, 2))):
                hung_s.append(_stop_one(process, random, ACTOR_AT_WORK, after_s=random.uniform(0, work.delay_s)))
        outcome = finish(work, process)
    timed_out = _timed_out(work)
    if timed_out:
        outcome = retry_errors(work, outcome)
        assert _timed_out(work) == 0, "samples that hung in one run succeed in the next"
    notes = {"stopped": len(hung_s), "longest hang s": round(max(hung_s), 1), "timed out rows": timed_out}
    return replace(outcome, notes=notes)


def _signal_driver(folder: Path, random: Random, number: signal.Signals) -> Outcome:
    work = local_work(folder)
    with running(work) as process:
        wait_for_moment(random, work, process, start_up=True)
        process.send_signal(number)
        return finish(work, process)


def _kill_worker(folder: Path, random: Random, is_meant: Callable[[str], bool], engines: int = 1) -> Outcome:
    work = replace(local_work(folder), engines=engines)
    with running(work) as process:
        wait_for_moment(random, work, process)
        find_one(process, random, is_meant).kill()
        return finish(work, process)


def _stop_one(process: "subprocess.Popen[bytes]", random: Random, kind: str, after_s: float = 0) -> float:
    """Stop a worker whose title begins with `kind`, `after_s` after it appears; return the seconds until it is gone.

    Raises:
        TooLateError: The run ended before.
        StillThereError: The worker was not ended.
    """
    worker = find_one(process, random, lambda title: title.startswith(kind))
    time.sleep(after_s)
    try:
        worker.suspend()
    except psutil.NoSuchProcess:
        raise TooLateError from None
    stopped_s = time.monotonic()
    try:
        worker.wait(HANG_LIMIT_S)
    except psutil.TimeoutExpired:
        worker.kill()
        raise StillThereError(f"{worker} was stopped for {HANG_LIMIT_S:g} s and still exists") from None
    return time.monotonic() - stopped_s


def _timed_out(work: Work) -> int:
    """Count the error rows of the model, all of which must be timeouts."""
    rows = [row for row in error_rows(work.output) if row["stage"] == "model"]
    assert all(str(row["reason"]).startswith("timed out") for row in rows), rows
    return len(rows)


def find_one(process: "subprocess.Popen[bytes]", random: Random, is_meant: Callable[[str], bool]) -> psutil.Process:
    """Wait for workers of a local run whose titles match, and return one of them.

    Raises:
        TooLateError: The run ended before.
    """
    below = descendants(process.pid)
    looked_at_s = time.monotonic()
    while process.poll() is None:
        meant = [worker for worker in below if is_meant(title(worker))]
        if meant:
            return random.choice(meant)
        if time.monotonic() - looked_at_s > 1:
            below, looked_at_s = descendants(process.pid), time.monotonic()
    raise TooLateError
