"""Signals to processes of a run: the command itself, the actor with the model, the readers and publishers."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil

from tests.faults.work import Outcome, TooLateError, descendants, finish, local_work, running, wait_for_moment

ACTOR = "ray::MapWorker"
CPU_WORKERS = ("ray::MapBatches(_Read)", "ray::MapBatches(_Publish)")
"""How Ray titles the processes of the stages while they are at work."""


def driver_kill(folder: Path, random: Random) -> Outcome:
    """SIGKILL to the command, at any moment from its start."""
    return _signal_driver(folder, random, signal.SIGKILL)


def driver_term(folder: Path, random: Random) -> Outcome:
    """SIGTERM to the command, as a scheduler sends that takes the machine away."""
    return _signal_driver(folder, random, signal.SIGTERM)


def actor_kill(folder: Path, random: Random) -> Outcome:
    """SIGKILL to the process that holds the model."""
    return _kill_worker(folder, random, lambda title: title.startswith(ACTOR))


def cpu_worker_kill(folder: Path, random: Random) -> Outcome:
    """SIGKILL to a process that is reading or publishing a chunk."""
    return _kill_worker(folder, random, lambda title: title.startswith(CPU_WORKERS))


def _signal_driver(folder: Path, random: Random, number: signal.Signals) -> Outcome:
    work = local_work(folder)
    with running(work) as process:
        wait_for_moment(random, work, process, start_up=True)
        process.send_signal(number)
        return finish(work, process)


def _kill_worker(folder: Path, random: Random, is_meant: Callable[[str], bool]) -> Outcome:
    work = local_work(folder)
    with running(work) as process:
        wait_for_moment(random, work, process)
        kill_one(process, random, is_meant)
        return finish(work, process)


def kill_one(process: "subprocess.Popen[bytes]", random: Random, is_meant: Callable[[str], bool]) -> None:
    """SIGKILL one of the workers of a local run as soon as there is one whose title is meant.

    Raises:
        TooLateError: the run ended before.
    """
    below = descendants(process.pid)
    looked_at_s = time.monotonic()
    while process.poll() is None:
        meant = [worker for worker in below if is_meant(title(worker))]
        if meant:
            random.choice(meant).kill()
            return
        if time.monotonic() - looked_at_s > 1:
            below, looked_at_s = descendants(process.pid), time.monotonic()
    raise TooLateError


def title(process: psutil.Process) -> str:
    """What `ps` shows."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""
