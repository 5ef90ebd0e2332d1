import random
from collections.abc import Sequence

import pytest

from tests.simulation.scheduler import DeadlockError, Killed, Scheduler, Thread


def interleaving(seed: int) -> str:
    """Run three threads that record their names five times each, and return the record."""
    rng = random.Random(seed)
    said: list[str] = []

    def choose(gives_way: Thread | None, ready: Sequence[Thread]) -> Thread:
        return rng.choice(ready)

    scheduler = Scheduler(choose)

    def body(name: str) -> None:
        for _ in range(5):
            said.append(name)
            scheduler.give_way()

    for name in "abc":
        scheduler.spawn(name, lambda name=name: body(name))
    scheduler.run()
    return "".join(said)


def test_the_same_choices_give_the_same_interleaving() -> None:
    assert interleaving(1) == interleaving(1)
    assert sorted(interleaving(1)) == sorted("abc" * 5)
    assert len({interleaving(seed) for seed in range(10)}) > 5


def test_without_a_choice_a_thread_goes_on_until_it_ends() -> None:
    scheduler, said = Scheduler(), []

    def body(name: str) -> None:
        for _ in range(2):
            said.append(name)
            scheduler.give_way()

    for name in "ab":
        scheduler.spawn(name, lambda name=name: body(name))
    scheduler.run()
    assert said == ["a", "a", "b", "b"]


def test_a_thread_waits_until_something_holds() -> None:
    scheduler, said = Scheduler(), []
    scheduler.spawn("first", lambda: (scheduler.wait(lambda: "second" in said), said.append("first")))
    scheduler.spawn("second", lambda: said.append("second"))
    scheduler.run()
    assert said == ["second", "first"]


def test_a_killed_thread_has_no_effect_not_even_at_its_end() -> None:
    scheduler, effects = Scheduler(), []

    def write(what: str) -> None:
        scheduler.give_way()
        effects.append(what)

    def victim() -> None:
        try:
            write("before")
            write("never")
        finally:
            write("never, in finally")

    def killer() -> None:
        scheduler.wait(lambda: effects == ["before"])
        scheduler.kill(thread)

    thread = scheduler.spawn("victim", victim)
    scheduler.spawn("killer", killer)
    scheduler.choose = lambda gives_way, ready: ready[-1]
    scheduler.run()
    assert effects == ["before"] and thread.is_done and thread.error is None


def test_a_thread_that_is_killed_before_its_turn_does_nothing() -> None:
    scheduler, effects = Scheduler(), []
    thread = scheduler.spawn("victim", lambda: effects.append("never"))
    scheduler.kill(thread)
    scheduler.run()
    assert effects == [] and thread.is_done


def test_an_exception_is_kept_in_its_thread() -> None:
    scheduler = Scheduler()
    thread = scheduler.spawn("broken", lambda: [][0])
    scheduler.run()
    assert isinstance(thread.error, IndexError)


def test_threads_that_wait_for_each_other_are_reported_and_ended() -> None:
    scheduler, ended = Scheduler(), []

    def body() -> None:
        try:
            scheduler.wait(lambda: False)
        except Killed:
            ended.append(True)
            raise

    for name in "ab":
        scheduler.spawn(name, body)
    with pytest.raises(DeadlockError, match="a, b: each waits"):
        scheduler.run()
    assert ended == [True, True]
