"""The ledger of attempts: who is blamed for a death, what is given up, and what is hopeless."""

import subprocess
import sys
import time

import pytest

from pipelines.engine.attempts import Attempt, BrokenProcessError, WorkerDeathError, building, watched
from pipelines.engine.ledger import Ledger, Orders
from pipelines.errors import SampleError

CHUNK = ("model", "chunk-0")


def begin(ledger: Ledger, *, worker: str = "actor", node: str = "node", chunk: str = "chunk-0", **more: bool) -> Orders:
    return ledger.begin("model", chunk, worker, node, **more)


def die_on(ledger: Ledger, position: int, chunk: str = "chunk-0", words: str = "", **more: bool) -> None:
    orders = begin(ledger, chunk=chunk, **more)
    ledger.works_on("model", chunk, orders.number, position)
    if words:
        ledger.last_words("model", chunk, orders.number, words)


def test_a_sample_is_given_up_when_it_died_alone_twice() -> None:
    ledger = Ledger()
    assert begin(ledger) == Orders(number=1)
    die_on(ledger, 5)
    second = begin(ledger)
    assert (second.one_by_one, second.first, second.given_up) == (True, (5,), {})
    ledger.works_on(*CHUNK, second.number, 5)
    third = begin(ledger)
    assert third.given_up == {5: "the worker process died on this sample (3 attempts)"}
    assert third.first == ()
    ledger.end(*CHUNK, third.number, True)
    assert begin(ledger) == Orders(number=1), "a chunk that ended is forgotten"


def test_deaths_on_different_samples_give_up_nothing() -> None:
    ledger = Ledger()
    for position in (1, 4, 2, 7):
        die_on(ledger, position)
    orders = begin(ledger)
    assert (orders.given_up, orders.first, orders.hopeless) == ({}, (1, 2, 4, 7), "")


def test_a_death_after_a_sample_is_not_that_samples() -> None:
    ledger = Ledger()
    begin(ledger)
    for _ in range(2):
        orders = begin(ledger)
        ledger.works_on(*CHUNK, orders.number, 3)
        ledger.came_through(*CHUNK, orders.number)
    orders = begin(ledger)
    assert (orders.first, orders.given_up) == ((), {})
    assert "died 3 times, and no single sample is to blame" in orders.hopeless


def test_deaths_with_a_lost_machine_do_not_count() -> None:
    ledger = Ledger(lambda node: node == "lost")
    for _ in range(5):
        orders = begin(ledger, node="lost")
        ledger.works_on(*CHUNK, orders.number, 3)
    assert begin(ledger) == Orders(number=6)


def test_a_worker_that_gets_nothing_through_is_to_blame_itself() -> None:
    ledger = Ledger()
    for position in (0, 1, 2):
        die_on(ledger, position)
        die_on(ledger, position)
    orders = begin(ledger)
    assert "lost 3 samples in a row and got none through" in orders.hopeless

    ledger = Ledger()
    for position in (0, 1, 2, 3, 4):
        die_on(ledger, position)
        orders = begin(ledger)
        ledger.works_on(*CHUNK, orders.number, 9)
        ledger.came_through(*CHUNK, orders.number)
        ledger.works_on(*CHUNK, orders.number, position)
    orders = begin(ledger)
    assert (orders.hopeless, set(orders.given_up)) == ("", {0, 1, 2, 3, 4})


def test_chunks_of_samples_that_failed_before_say_nothing_of_the_worker() -> None:
    for failed_before in (False, True):
        ledger, hopeless = Ledger(), []
        for chunk in ("chunk-0", "chunk-1", "chunk-2"):
            die_on(ledger, 7, chunk, failed_before=failed_before)
            die_on(ledger, 7, chunk, failed_before=failed_before)
            orders = begin(ledger, chunk=chunk, failed_before=failed_before)
            ledger.end("model", chunk, orders.number, True)
            hopeless.append(bool(orders.hopeless))
        assert hopeless == [False, False, not failed_before]


def test_an_attempt_that_was_given_up_for_dead_is_not_listened_to() -> None:
    ledger = Ledger()
    old = begin(ledger)
    new = begin(ledger)
    ledger.works_on(*CHUNK, old.number, 3)
    ledger.end(*CHUNK, old.number, True)
    ledger.works_on(*CHUNK, new.number, 4)
    assert begin(ledger).first == (4,)


def test_a_result_that_is_lost_again_and_again_is_hopeless() -> None:
    ledger = Ledger()
    for _ in range(6):
        orders = begin(ledger)
        assert not orders.hopeless
        ledger.end(*CHUNK, orders.number, True)
    assert begin(ledger).hopeless == "it was done 6 times and its result lost"


def test_last_words_are_the_reason() -> None:
    ledger = Ledger()
    for _ in range(2):
        die_on(ledger, 5, words="timed out after 60 s")
    assert begin(ledger).given_up == {5: "timed out after 60 s (2 attempts)"}


def test_a_process_that_could_say_nothing_has_timed_out_when_its_time_was_over() -> None:
    for took_s, reason in [(25.0, "the worker process died on this sample"), (35.0, "timed out after 20 s")]:
        now_s = [100.0]
        ledger = Ledger(limit_s=20.0, clock=lambda now_s=now_s: now_s[0])
        for _ in range(2):
            die_on(ledger, 5)
            now_s[0] += took_s
            ledger.build_begins("another")
            ledger.build_begins("actor")
            now_s[0] += 100  # while the model loads
        assert begin(ledger).given_up == {5: f"{reason} (2 attempts)"}


def test_a_stage_is_told_what_to_do_alone_and_what_to_leave_out() -> None:
    noted: list[int | None] = []

    def note(position: int | None = None) -> None:
        noted.append(position)

    attempt = Attempt("read", Orders(number=3, one_by_one=True, first=(7,), given_up={2: "it died"}), note)
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
    assert noted == [7, None, 9, None, 1], "it did not come through"


def test_an_exception_ends_an_attempt_and_is_no_death() -> None:
    ledger = Ledger()
    for _ in range(5):
        with (
            pytest.raises(OSError, match="storage"),
            watched(lambda method, *words: getattr(ledger, method)(*words), *CHUNK, worker="w", node="n"),
        ):
            raise OSError("storage")
    assert begin(ledger) == Orders(number=1)


def test_a_hopeless_chunk_fails_and_its_model_too() -> None:
    ledger = Ledger()

    def ask(method: str, *words: object) -> object:
        return getattr(ledger, method)(*words)

    for _ in range(3):
        begin(ledger)
    hopeless = "model of chunk-0: its worker process died 3 times"
    with pytest.raises(WorkerDeathError, match=hopeless), watched(ask, *CHUNK, worker="w", node="n"):
        raise AssertionError("not reached")
    for _ in range(3):
        ledger.build_begins("actor")
    with pytest.raises(WorkerDeathError, match="died 3 times while it loaded the model"), building(ask, "actor"):
        raise AssertionError("not reached")
    with building(ask, "actor"):
        pass
    assert ledger.build_begins("actor") == 0


HANG = """
import sys, time
from pipelines import attempts
attempts.GRACE_S = 0.5
watchdog = attempts.Watchdog(0.3, lambda text: print(text, flush=True))
watchdog.start(); watchdog.stop(); time.sleep(0.6); watchdog.start()
{hang}
"""


@pytest.mark.parametrize(
    ("hang", "says"),
    [("time.sleep(60)", "timed out after 0.3 s\n"), ("sys.setswitchinterval(1e9)\nwhile True: pass", "")],
    ids=["with a turn for threads", "without"],
)
def test_the_watchdog_ends_a_process_that_hangs(hang: str, says: str) -> None:
    started = time.monotonic()
    process = subprocess.run([sys.executable, "-c", HANG.format(hang=hang)], capture_output=True, text=True, timeout=50)
    assert (process.returncode, process.stdout) == (1, says)
    assert "File" in process.stderr, "where it hung"
    assert time.monotonic() - started < 45
