"""A stopped process is killed; one that works, or only waits, is not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipelines.engine.kernel_timer import kill_when_frozen

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="POSIX timers are available on Linux")

PROCESS = """
import os, signal, sys, time
from pipelines.engine.kernel_timer import kill_when_frozen
kill_when_frozen(3.0)
kill_when_frozen(3.0)
print(open("/proc/self/timers").read().count("signal: 9/"), flush=True)
{then}
"""


def run(then: str) -> "tuple[int, str, float]":
    """Exit code, output, seconds."""
    started = time.monotonic()
    command = [sys.executable, "-c", PROCESS.format(then=then)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return process.returncode, process.stdout, time.monotonic() - started


def test_a_process_that_stops_is_killed() -> None:
    code, output, took_s = run("os.kill(os.getpid(), signal.SIGSTOP); print('resumed')")
    assert (code, output) == (-signal.SIGKILL, "1\n")
    assert took_s < 45


@pytest.mark.parametrize(
    "then", ["time.sleep(5)", "until = time.monotonic() + 5\nwhile time.monotonic() < until: pass"]
)
def test_a_process_that_waits_or_works_is_left_alone(then: str) -> None:
    assert run(then)[:2] == (0, "1\n")


def test_a_process_that_resumes_in_time_is_left_alone() -> None:
    command = [sys.executable, "-c", PROCESS.format(then="time.sleep(5)")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0


def test_children_do_not_inherit_the_timer() -> None:
    kill_when_frozen(3600.0)
    child = os.fork()
    if child == 0:
        with open("/proc/self/timers") as file:
            os._exit(len(file.read()))
    assert os.waitpid(child, 0)[1] == 0
