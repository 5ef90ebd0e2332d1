"""What one simulated schedule is about: the input, who runs what on one output, what the user does, what may go wrong.

A scenario is data: it is made from a seed (`features`), played (`play`) and made smaller (`shrink`).
"""

from dataclasses import dataclass, field

from tests.simulation.commands import Spec
from tests.simulation.contents import Action, Samples
from tests.simulation.events import CALM, Rates


@dataclass(frozen=True, kw_only=True)
class Round:
    """Commands that begin together on one output, and what happens while they run."""

    commands: tuple[Spec, ...] = ()
    actions: tuple[Action, ...] = ()
    """What the user does while the commands run, in order; what is left is done at the end."""
    rates: Rates = CALM
    renames: bool = False
    """Before it begins, the user renames the output."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Rounds one after the other; then a command alone must bring the output in order, whatever they left."""

    form: str
    shards: tuple[tuple[str, Samples], ...]
    rounds: tuple[Round, ...]
    healer: Spec = Spec(name="H", workers=1)
    """The command that is then run alone until it says 0."""
    healing: Rates = CALM
    """What may go wrong even then: rows that are flaky."""
    afterwards: tuple[Round, ...] = ()
    """Well-behaved commands on the output that is in order: none of its good rows may be lost, not for a moment."""
    page_files: int = 4
    knows_conditions: bool = True
    is_disk: bool = False
    """A local disk that may lose power, instead of an object store."""
    may_stay: bool = field(default=False)
    """Rows of samples that have left the input may stay."""

    @property
    def size(self) -> int:
        """How much there is to understand, for the shrinker."""
        rounds = (*self.rounds, *self.afterwards)
        commands = sum(1 + command.restarts + command.workers for each in rounds for command in each.commands)
        actions = sum(len(each.actions) for each in rounds)
        samples = sum(len(samples) for _, samples in self.shards)
        return 10 * len(rounds) + 5 * commands + 5 * actions + samples
