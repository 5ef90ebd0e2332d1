"""Attempts beside each other in one process: clocks of the older one, and suspects alone."""

import threading
import time
from collections.abc import Callable

import pytest

from pipelines.engine.attempts import supervised
from pipelines.engine.ledger import Ledger
from pipelines.engine.turns import Turns


def in_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_attempts_overlap_and_the_action_of_the_younger_one_waits_for_the_older_one() -> None:
    turns, done = Turns(), []
    with turns.taken(alone=False) as older:
        turns.when_first(older, lambda: done.append("older"))
        with turns.taken(alone=False) as younger:
            turns.when_first(younger, lambda: done.append("younger"))
            assert (done, older.order < younger.order) == (["older"], True)
            turns.when_first(older, None)
    assert done == ["older"], "the younger one ended first"

    first = turns.taken(alone=False)
    turn = first.__enter__()
    with turns.taken(alone=False) as second:
        turns.when_first(second, lambda: done.append("second"))
        first.__exit__(None, None, None)
        assert (turn.order < second.order, done) == (True, ["older", "second"])


def test_a_suspect_waits_for_the_others_and_they_for_it() -> None:
    turns, events = Turns(), []
    release = threading.Event()

    def suspect() -> None:
        with turns.taken(alone=True):
            events.append("suspect")
            release.wait(5)
            events.append("suspect ends")

    def other() -> None:
        with turns.taken(alone=False):
            events.append("other")

    with turns.taken(alone=False):
        threads = [in_thread(suspect)]
        time.sleep(0.05)
        threads.append(in_thread(other))
        time.sleep(0.05)
        assert events == []
        events.append("first ends")
    release.set()
    for thread in threads:
        thread.join(5)
    assert events == ["first ends", "suspect", "suspect ends", "other"]


def test_a_chunk_whose_process_died_runs_alone_and_others_are_not_blamed_for_it() -> None:
    ledger, turns = Ledger(), Turns()

    def attempt(chunk: str):  # noqa: ANN202
        def ask(method: str, *words: object) -> object:
            return getattr(ledger, method)(*words)

        return supervised(ask, "model", chunk, worker="w", node="n", turns=turns)

    for chunk in ("a", "b"):  # a process that dies while it works on both
        ledger.begin("model", chunk, "w", "n")
    with attempt("c") as beside, pytest.raises(ValueError, match="ends"), attempt("d") as other:
        assert not beside.one_by_one and not other.one_by_one and beside.order < other.order
        raise ValueError("ends")
    overlapping: list[str] = []

    def run(chunk: str) -> None:
        with attempt(chunk) as this:
            overlapping.append(f"{chunk} {this.one_by_one}")
            time.sleep(0.05)
            overlapping.append(chunk)

    threads = [in_thread(lambda chunk=chunk: run(chunk)) for chunk in ("a", "b")]
    for thread in threads:
        thread.join(5)
    assert overlapping in (["a True", "a", "b True", "b"], ["b True", "b", "a True", "a"])
    assert not ledger.has_died("model", "a")


def test_only_the_older_attempt_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []

    class Dog:
        def __init__(self, limit_s: float | None, report: object) -> None:
            self.number = len(made)
            made.append(self)

        def start(self) -> None:
            running.append(self.number)

        def stop(self) -> None:
            if self.number in running:
                running.remove(self.number)

    made: list[Dog] = []
    monkeypatch.setattr("pipelines.engine.attempts.Watchdog", Dog)
    ledger, turns = Ledger(), Turns()

    def attempt(chunk: str):  # noqa: ANN202
        return supervised(lambda name, *words: getattr(ledger, name)(*words), "model", chunk, worker="w", node="n",
                          limit_s=None, turns=turns)  # fmt: skip

    older, younger = attempt("a"), attempt("b")
    older.__enter__()
    younger.__enter__()
    assert running == [0]
    older.__exit__(None, None, None)
    assert running == [1]
    younger.__exit__(None, None, None)
    assert running == []
