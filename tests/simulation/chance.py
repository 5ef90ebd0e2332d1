"""Everything that is left to chance in a run: drawn from a seed, or repeated from what was drawn before.

A draw is known by its place: who draws, how many times before, and what for. What comes out as nothing special is not
kept, so the decisions of a run are a short list, and leaving one out gives another run that is as valid.
"""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """Where something is decided."""

    who: str
    number: int
    """How many decisions of this kind `who` has had before."""
    what: str


Decisions = Mapping[Place, str]
"""Place -> what was decided; nothing special where a place is missing."""


class Chance:
    """Decides, and remembers what it decided."""

    def __init__(self, seed: str | None = None, decisions: Decisions | None = None) -> None:
        """With a seed decisions are drawn, without one they are those given."""
        self.given = dict(decisions or {})
        self.taken: dict[Place, str] = {}
        """What was decided, in order."""
        self._random = None if seed is None else random.Random(seed)

    def decide(self, place: Place, draw: Callable[[random.Random], str]) -> str:
        """What is decided at a place: "" for nothing special."""
        decision = self.given.get(place, "") if self._random is None else draw(self._random)
        if decision:
            self.taken[place] = decision
        return decision
