"""Attempts in a worker: what the stage and the ledger learn, and how a process that hangs is ended."""

import subprocess
import sys
import time

import pytest

from pipelines.engine.attempts import Attempt, BrokenProcessError, WorkerDeathError, building, supervised
from pipelines.engine.ledger import AttemptPlan, Ledger
from pipelines.errors import SampleError

CHUNK = ("model", "chunk-0")


def test_a_stage_learns_what_to_process_alone_and_what_to_skip() -> None:
    noted: list[int | None] = []

    def note(position: int | None = None) -> None:
        noted.append(position)

    attempt = Attempt("read", AttemptPlan(number=3, one_by_one=True, first=(7,), given_up={2: "it died"}), note)
    assert attempt.in_order([1, 2, 7, 9]) == [7, 1, 2, 9]
    with attempt.on(7):
        assert noted == [7]
    with pytest.raises(SampleError, match="decode"), attempt.on(9):
        raise SampleError("decode", "broken")
    with pytest.raises(SampleError, match="read: it died"), attempt.on(2):
        raise AssertionError("given up")
    assert noted == [7, None, 9, None]
    with pytest.raises(BrokenProcessError), attempt.on(1):
        raise BrokenProcessError("CUDA error")
    assert noted == [7, None, 9, None, 1], "the sample is not done"


def test_an_exception_ends_an_attempt_and_is_no_death() -> None:
    ledger = Ledger()
    for _ in range(5):
        with (
            pytest.raises(OSError, match="storage"),
            supervised(lambda method, *words: getattr(ledger, method)(*words), *CHUNK, worker="w", node="n"),
        ):
            raise OSError("storage")
    assert ledger.begin(*CHUNK, "w", "n") == AttemptPlan(number=1)


def test_deaths_that_no_sample_explains_fail_the_chunk_and_the_model() -> None:
    ledger = Ledger()

    def ask(method: str, *words: object) -> object:
        return getattr(ledger, method)(*words)

    for _ in range(3):
        ledger.begin(*CHUNK, "w", "n")
    failure = "model of chunk-0: its worker process died 3 times"
    with pytest.raises(WorkerDeathError, match=failure), supervised(ask, *CHUNK, worker="w", node="n"):
        raise AssertionError("not reached")
    for _ in range(3):
        ledger.build_started("actor")
    with pytest.raises(WorkerDeathError, match="died 3 times while it loaded the model"), building(ask, "actor"):
        raise AssertionError("not reached")
    with building(ask, "actor"):
        pass
    assert ledger.build_started("actor") == 0


HANG = """
import sys, time
from pipelines.engine import watchdog
watchdog.GRACE_S = 0.5
dog = watchdog.Watchdog(0.3, lambda text: print(text, flush=True))
dog.start(); dog.stop(); time.sleep(0.6); dog.start()
{hang}
"""


@pytest.mark.parametrize(
    ("hang", "output"),
    [("time.sleep(60)", "timed out after 0.3 s\n"), ("sys.setswitchinterval(1e9)\nwhile True: pass", "")],
    ids=["other threads run", "no other thread runs"],
)
def test_the_watchdog_ends_a_process_that_hangs(hang: str, output: str) -> None:
    started = time.monotonic()
    process = subprocess.run([sys.executable, "-c", HANG.format(hang=hang)], capture_output=True, text=True, timeout=50)
    assert (process.returncode, process.stdout) == (1, output)
    assert "most recent call first" in process.stderr, "the log says where it hung"
    assert time.monotonic() - started < 45
