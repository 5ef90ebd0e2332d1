"""The events that may happen at a point of a simulated run, their probabilities, and how they are drawn.

An event is a short text that can be recorded and replayed: `switch B.1`, `fail after`, `kill A zombies late`, ...
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

READS = ("list", "stat", "get")
WRITES = ("put", "create", "del", "write", "sync", "rename", "link")
LANDING = 0.05
"""Probability that a pending write of a dead process takes effect now."""
KILLS_AT_WRITES = 4
"""How much more likely a kill is before a write, which may then take effect later."""
STALE_PAGES = 5
"""Number of consecutive listing pages that do not show the latest changes."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Probability of each event at a point; in a calm world all are zero."""

    switch: float = 0.0
    """Another thread continues."""
    switch_at_writes: float = 0.0
    """Another thread continues, before and after a write."""
    kill: float = 0.0
    """A command is killed with SIGKILL."""
    kills: int = 0
    """Maximum number of kills and power losses."""
    late: float = 0.0
    """Share of kills and failures after which the pending write takes effect later."""
    zombies: float = 0.0
    """Share of kills after which the workers stay alive for a while."""
    die: float = 0.0
    """A worker process dies in the middle of its stage."""
    power: float = 0.0
    """The machine loses power, all commands at once."""
    fail: float = 0.0
    """A storage call fails."""
    lost: float = 0.0
    """Share of failing writes that took effect, so that only the response is lost."""
    stale: float = 0.0
    """A page of a listing does not show the latest changes yet."""
    act: float = 0.0
    """The user performs the next action."""
    flaky: float = 0.0
    """A row fails in this attempt."""
    away: float = 0.0
    """An image is temporarily unavailable."""
    forget: float = 0.0
    """The result of a finished stage is lost, so the stage is repeated."""


CALM = Rates()


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The state on which an event depends."""

    what: str
    """The storage call or other operation that the thread is about to perform."""
    is_worker: bool
    others: Sequence[str]
    """Threads that could continue instead."""
    commands: Sequence[str]
    """Commands that can be killed."""
    may_act: bool
    may_land: bool


def draw_event(rng: random.Random, rates: Rates, roll: float, situation: Situation) -> str:
    """Return the event for a number between 0 and 1; most numbers give no event."""
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
    """Return the number from which on `draw_event` gives no event in any situation."""
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
