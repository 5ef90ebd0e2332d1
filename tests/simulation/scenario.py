"""The description of a simulated schedule: the input, the commands on one output, the user's actions, the faults.

A scenario is plain data: it is drawn from a seed (`features`), played (`play`) and shrunk (`shrink`).
"""

from dataclasses import dataclass, field

from tests.simulation.commands import Spec
from tests.simulation.contents import Action, Samples
from tests.simulation.events import CALM, Rates


@dataclass(frozen=True, kw_only=True)
class Round:
    """Commands that start together on one output, and what happens while they run."""

    commands: tuple[Spec, ...] = ()
    actions: tuple[Action, ...] = ()
    """Actions of the user while the commands run, in order; the remaining ones are performed at the end."""
    rates: Rates = CALM
    renames: bool = False
    """Whether the user renames the output before the round."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Consecutive rounds, after which a command alone must repair the output in whatever state they left it."""

    form: str
    shards: tuple[tuple[str, Samples], ...]
    rounds: tuple[Round, ...]
    healer: Spec = Spec(name="H", workers=1)
    """The command that is then run alone until its exit code is 0."""
    healing: Rates = CALM
    """Faults during the repair: flaky rows."""
    afterwards: tuple[Round, ...] = ()
    """Rounds on the repaired output, during which none of its good rows may be lost, even temporarily."""
    page_files: int = 4
    knows_conditions: bool = True
    is_disk: bool = False
    """Whether the storage is a local disk that may lose power instead of an object store."""
    may_stay: bool = field(default=False)
    """Whether rows of samples that left the input may stay."""

    @property
    def size(self) -> int:
        """Return the complexity of the scenario, which the shrinker reduces."""
        rounds = (*self.rounds, *self.afterwards)
        commands = sum(1 + command.restarts + command.workers for each in rounds for command in each.commands)
        actions = sum(len(each.actions) for each in rounds)
        samples = sum(len(samples) for _, samples in self.shards)
        return 10 * len(rounds) + 5 * commands + 5 * actions + samples
