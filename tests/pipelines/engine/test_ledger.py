"""The ledger of attempts: which sample is blamed for a death, which ones are given up, and when a chunk fails."""

from typing import Any

import pytest

from pipelines.engine.ledger import AttemptPlan, Ledger

CHUNK = ("model", "chunk-0")


def begin(
    ledger: Ledger, *, worker: str = "actor", node: str = "node", chunk: str = "chunk-0", **options: Any
) -> AttemptPlan:
    return ledger.begin("model", chunk, worker, node, **options)


def die_on(ledger: Ledger, position: int, chunk: str = "chunk-0", reason: str = "", **options: Any) -> None:
    plan = begin(ledger, chunk=chunk, **options)
    ledger.sample_started("model", chunk, plan.number, position)
    if reason:
        ledger.set_exit_reason("model", chunk, plan.number, reason)


def test_a_sample_is_given_up_after_two_deaths_on_it_alone() -> None:
    ledger = Ledger()
    assert begin(ledger) == AttemptPlan(number=1)
    die_on(ledger, 5)
    second = begin(ledger)
    assert (second.one_by_one, second.first, second.given_up) == (True, (5,), {})
    ledger.sample_started(*CHUNK, second.number, 5)
    third = begin(ledger)
    assert third.given_up == {5: "the worker process died on this sample (3 attempts)"}
    assert third.first == ()
    ledger.end(*CHUNK, third.number, True)
    assert begin(ledger) == AttemptPlan(number=1), "a chunk that ended is forgotten"


def test_deaths_on_different_samples_give_up_nothing() -> None:
    ledger = Ledger()
    for position in (1, 4, 2, 7):
        die_on(ledger, position)
    plan = begin(ledger)
    assert (plan.given_up, plan.first, plan.failure) == ({}, (1, 2, 4, 7), "")


def test_a_death_after_a_sample_does_not_count_for_the_sample() -> None:
    ledger = Ledger()
    begin(ledger)
    for _ in range(2):
        plan = begin(ledger)
        ledger.sample_started(*CHUNK, plan.number, 3)
        ledger.sample_done(*CHUNK, plan.number)
    plan = begin(ledger)
    assert (plan.first, plan.given_up) == ((), {})
    assert "died 3 times, and no single sample is to blame" in plan.failure


def test_deaths_with_a_lost_node_do_not_count() -> None:
    ledger = Ledger(lambda node: node == "lost")
    for _ in range(5):
        plan = begin(ledger, node="lost")
        ledger.sample_started(*CHUNK, plan.number, 3)
    assert begin(ledger) == AttemptPlan(number=6)


def test_a_worker_that_completes_nothing_is_to_blame_itself() -> None:
    ledger = Ledger()
    for position in (0, 1, 2):
        die_on(ledger, position)
        die_on(ledger, position)
    plan = begin(ledger)
    assert "lost 3 samples in a row and completed none" in plan.failure

    ledger = Ledger()
    for position in (0, 1, 2, 3, 4):
        die_on(ledger, position)
        plan = begin(ledger)
        ledger.sample_started(*CHUNK, plan.number, 9)
        ledger.sample_done(*CHUNK, plan.number)
        ledger.sample_started(*CHUNK, plan.number, position)
    plan = begin(ledger)
    assert (plan.failure, set(plan.given_up)) == ("", {0, 1, 2, 3, 4})


@pytest.mark.parametrize("failed_before", [False, True])
def test_chunks_of_samples_that_failed_before_say_nothing_about_the_worker(failed_before: bool) -> None:
    ledger, failures = Ledger(), []
    for chunk in ("chunk-0", "chunk-1", "chunk-2"):
        die_on(ledger, 7, chunk, failed_before=failed_before)
        die_on(ledger, 7, chunk, failed_before=failed_before)
        plan = begin(ledger, chunk=chunk, failed_before=failed_before)
        ledger.end("model", chunk, plan.number, True)
        failures.append(bool(plan.failure))
    assert failures == [False, False, not failed_before]


def test_reports_of_an_attempt_that_was_replaced_are_ignored() -> None:
    ledger = Ledger()
    old = begin(ledger)
    new = begin(ledger)
    ledger.sample_started(*CHUNK, old.number, 3)
    ledger.end(*CHUNK, old.number, True)
    ledger.sample_started(*CHUNK, new.number, 4)
    assert begin(ledger).first == (4,)


def test_a_chunk_whose_result_is_lost_again_and_again_fails() -> None:
    ledger = Ledger()
    for _ in range(6):
        plan = begin(ledger)
        assert not plan.failure
        ledger.end(*CHUNK, plan.number, True)
    assert begin(ledger).failure == "it was completed 6 times and its result was lost each time"


def test_the_exit_reason_becomes_the_reason_of_the_error() -> None:
    ledger = Ledger()
    for _ in range(2):
        die_on(ledger, 5, reason="timed out after 60 s")
    assert begin(ledger).given_up == {5: "timed out after 60 s (2 attempts)"}


@pytest.mark.parametrize(
    ("took_s", "reason"), [(25.0, "the worker process died on this sample"), (35.0, "timed out after 20 s")]
)
def test_a_process_over_its_time_limit_that_could_not_report_has_timed_out(took_s: float, reason: str) -> None:
    now_s = 100.0
    ledger = Ledger(limit_s=20.0, clock=lambda: now_s)
    for _ in range(2):
        die_on(ledger, 5)
        now_s += took_s
        ledger.build_started("another")
        ledger.build_started("actor")
        now_s += 100  # while the model loads
    assert begin(ledger).given_up == {5: f"{reason} (2 attempts)"}
