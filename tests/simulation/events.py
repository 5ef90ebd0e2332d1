"""What may happen at a point of a simulated run, how likely it is, and how it is drawn.

An event is a short text, so that it can be kept and repeated: `switch B.1`, `fail after`, `kill A zombies late`, ...
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

READS = ("list", "stat", "get")
WRITES = ("put", "create", "del", "write", "sync", "rename", "link")
LANDING = 0.05
"""Likelihood that a write that is under way without its process lands now."""


KILLS_AT_WRITES = 4
"""How much more likely a kill is before a write, which may then land later."""
STALE_PAGES = 5
"""How many pages of listings in a row do not show the latest changes."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How likely each event is at a point. A calm world has none of them."""

    switch: float = 0.0
    """Another thread goes on."""
    switch_at_writes: float = 0.0
    """The same, before and after a write."""
    kill: float = 0.0
    """A command is killed, by kill -9."""
    kills: int = 0
    """Commands killed, and power lost, at most."""
    late: float = 0.0
    """Of the kills and failures: the write that was under way lands some time later."""
    zombies: float = 0.0
    """Of the kills: the workers live on for a while."""
    die: float = 0.0
    """A worker process dies in the middle of its stage."""
    power: float = 0.0
    """The machine loses power, all commands at once."""
    fail: float = 0.0
    """A storage call fails."""
    lost: float = 0.0
    """Of the writes that fail: they have taken effect, only the answer is lost."""
    stale: float = 0.0
    """A page of a listing does not show the latest changes yet."""
    act: float = 0.0
    """The user does the next thing."""
    flaky: float = 0.0
    """A row fails this time."""
    away: float = 0.0
    """A picture cannot be fetched for now."""
    forget: float = 0.0
    """A stage's result is lost after it is done: it is done again."""


CALM = Rates()


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What an event depends on."""

    what: str
    """The call, or what else the thread is about to do."""
    is_worker: bool
    others: Sequence[str]
    """Threads that could go on instead."""
    commands: Sequence[str]
    """Those that can be killed."""
    may_act: bool
    may_land: bool


def draw_event(rng: random.Random, rates: Rates, roll: float, situation: Situation) -> str:
    """The event for a number between 0 and 1, of which most stand for none."""
    it = situation
    is_write = it.what.removeprefix("after ") in WRITES
    for rate, event in (
        (
            rates.switch_at_writes if is_write else rates.switch,
            lambda: f"switch {rng.choice(it.others)}" if it.others else "",
        ),
        (rates.fail, lambda: _failure(rng, rates, it.what)),
        (rates.kill * (KILLS_AT_WRITES if it.what in WRITES else 1), lambda: _kill(rng, rates, it.commands)),
        (rates.power, lambda: f"power {rng.randrange(1000)}" if it.commands else ""),
        (rates.die, lambda: f"die{_late(rng, rates)}" if it.is_worker else ""),
        (rates.act, lambda: "act" if it.may_act else ""),
        (LANDING if it.may_land else 0.0, lambda: "land"),
        (rates.stale, lambda: f"stale {rng.randint(1, 6)}" if it.what == "list" else ""),
    ):
        if roll < rate:
            return event()
        roll -= rate
    return ""


def most_likely_none(rates: Rates) -> float:
    """From this number on `draw_event` gives none, whatever the situation."""
    kill = rates.kill * KILLS_AT_WRITES
    switch = max(rates.switch, rates.switch_at_writes)
    return switch + rates.fail + kill + rates.power + rates.die + rates.act + LANDING + rates.stale


def _failure(rng: random.Random, rates: Rates, what: str) -> str:
    if what in READS:
        return "fail"
    if what not in WRITES:
        return ""
    roll = rng.random()
    if roll < rates.lost:
        return "fail after"
    return "fail late" if roll < rates.lost + rates.late else "fail"


def _kill(rng: random.Random, rates: Rates, commands: Sequence[str]) -> str:
    if not commands:
        return ""
    zombies = " zombies" if rng.random() < rates.zombies else ""
    return f"kill {rng.choice(commands)}{zombies}{_late(rng, rates)}"


def _late(rng: random.Random, rates: Rates) -> str:
    return " late" if rng.random() < rates.late else ""
