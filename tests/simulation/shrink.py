"""Shrinks a broken schedule: fewer rounds, commands, user actions, samples and random decisions.

Every attempt plays a scenario with one item fewer and the remaining decisions. It is accepted if it breaks one of the
invariants that were broken before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tests.simulation.chance import Decisions, Place
from tests.simulation.commands import Spec
from tests.simulation.play import Played, play
from tests.simulation.scenario import Round, Scenario

Item = TypeVar("Item")
MOST_PLAYS = 1500


@dataclass(frozen=True, kw_only=True)
class Case:
    """A broken schedule."""

    scenario: Scenario
    played: Played

    @property
    def decisions(self) -> Decisions:
        """Return its random decisions."""
        return self.played.decisions


class Shrinker:
    """Shrinks one case."""

    def __init__(self, scenario: Scenario, played: Played, most_plays: int = MOST_PLAYS) -> None:
        self.wanted = set(played.broken)
        self.best = Case(scenario=scenario, played=played)
        self.plays_left = most_plays

    def shrink(self) -> Case:
        """Return the smallest case found, of which no single item can be removed."""
        size = None
        while size != self._size() and self.plays_left > 0:
            size = self._size()
            self._leave_out_decisions()
            self._leave_out_scenery()
        return self.best

    def _size(self) -> tuple[int, int]:
        return self.best.scenario.size, len(self.best.decisions)

    def _try(self, scenario: Scenario, decisions: Decisions) -> bool:
        if self.plays_left <= 0:
            return False
        self.plays_left -= 1
        played = play(scenario, decisions=decisions)
        if not self.wanted & set(played.broken):
            return False
        self.best = Case(scenario=scenario, played=played)
        return True

    def _leave_out_decisions(self) -> None:
        """Remove halves of the decisions, then quarters, and so on."""

        def holds(left: Sequence[tuple[Place, str]]) -> bool:
            return self._try(self.best.scenario, dict(left))

        smallest(list(self.best.decisions.items()), holds)

    def _leave_out_scenery(self) -> None:
        changed = True
        while changed and self.plays_left > 0:
            changed = any(
                candidate.size < self.best.scenario.size and self._try(candidate, self.best.decisions)
                for candidate in smaller(self.best.scenario)
            )


def smallest(items: list[Item], holds: Callable[[list[Item]], bool]) -> list[Item]:
    """Return a minimal part of the items for which a condition still holds (delta debugging)."""
    size = max(len(items) // 2, 1)
    while items:
        at, before = 0, len(items)
        while at < len(items):
            left = items[:at] + items[at + size :]
            if holds(left):
                items = left
            else:
                at += size
        if size == 1 and len(items) == before:
            break
        size = max(size // 2, 1)
    return items


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with one item fewer."""
    for field in ("afterwards", "rounds"):
        rounds: tuple[Round, ...] = getattr(scenario, field)
        for at in range(len(rounds)):
            yield replace(scenario, **{field: _without(rounds, at)})
        for at, each in enumerate(rounds):
            for less in _smaller_rounds(each):
                yield replace(scenario, **{field: (*rounds[:at], less, *rounds[at + 1 :])})
    for at, (name, samples) in enumerate(scenario.shards):
        if len(scenario.shards) > 1:
            yield replace(scenario, shards=_without(scenario.shards, at))
        for sample in reversed(range(len(samples))):
            less = (name, _without(samples, sample))
            if less[1]:
                yield replace(scenario, shards=(*scenario.shards[:at], less, *scenario.shards[at + 1 :]))


def _smaller_rounds(each: Round) -> Iterator[Round]:
    for at, spec in enumerate(each.commands):
        yield replace(each, commands=_without(each.commands, at))
        for less in _smaller_specs(spec):
            yield replace(each, commands=(*each.commands[:at], less, *each.commands[at + 1 :]))
    for at in range(len(each.actions)):
        yield replace(each, actions=_without(each.actions, at))


def _smaller_specs(spec: Spec) -> Iterator[Spec]:
    if spec.restarts:
        yield replace(spec, restarts=spec.restarts - 1)
    if spec.workers > 1:
        yield replace(spec, workers=spec.workers - 1)


def _without(items: tuple[Item, ...], at: int) -> tuple[Item, ...]:
    return items[:at] + items[at + 1 :]
