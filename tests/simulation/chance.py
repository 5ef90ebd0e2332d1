"""All random decisions of a run: drawn from a seed, or replayed from earlier decisions.

A decision is identified by its place: which thread draws, how many draws it has made before, and for what. Decisions
with the default outcome are not recorded, so a run is described by a short list of decisions, and omitting one of them
gives another valid run.
"""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """The place of a decision in a run."""

    who: str
    number: int
    """Number of earlier decisions of `who`."""
    what: str


Decisions = Mapping[Place, str]
"""Decision by place; a missing place means the default outcome."""


class Chance:
    """Makes decisions and records them."""

    def __init__(self, seed: str | None = None, decisions: Decisions | None = None) -> None:
        """Draw decisions from `seed`, or replay `decisions` if there is no seed."""
        self.given = dict(decisions or {})
        self.taken: dict[Place, str] = {}
        """The decisions made so far, in order."""
        self._random = None if seed is None else random.Random(seed)

    def decide(self, place: Place, draw: Callable[[random.Random], str]) -> str:
        """Return the decision at a place; "" is the default outcome."""
        decision = self.given.get(place, "") if self._random is None else draw(self._random)
        if decision:
            self.taken[place] = decision
        return decision
