"""Plays a scenario and says which of the promises were broken.

I1  All commands said 0: every sample is in the output exactly once, and every mark is true; on a disk also after a loss
    of power.
I2  The same command alone, at most TRIES times, reaches exit code 0.
I3  A command that said 0 while it ran alone: as I1, at once.
I4  No command ends with an exception; of two configurations one is refused with 2.
I5  On an output that is in order, commands never lose a good row, whatever is killed.

I1 and I3 are about what a command can know: what the workers of a killed one still write, and what the user changes,
after the command has looked at its input for the last time, comes too late for them. I2 holds even then.
"""

from dataclasses import dataclass, field, replace

from tests.simulation.chance import Chance, Decisions, Place
from tests.simulation.checks import Checks, final_look
from tests.simulation.commands import Command, Run, Spec
from tests.simulation.contents import Action, Input
from tests.simulation.disk import DiskStore, Platter, SimulatedDisk
from tests.simulation.scenario import Round, Scenario
from tests.simulation.scheduler import DeadlockError
from tests.simulation.store import SimulatedStore
from tests.simulation.world import Step, World

TRIES = 4
OUTPUT = "sim://bucket/out"


@dataclass(frozen=True, kw_only=True)
class Played:
    """What became of a scenario."""

    broken: tuple[str, ...]
    """Promises, as `I1 lost`; none when all is well."""
    details: tuple[str, ...]
    decisions: Decisions
    """What chance decided."""
    trace: tuple[Step, ...]
    points: tuple[tuple[Place, str, str], ...]
    """(place, what, URI) of every point, where something may be decided."""


def play(scenario: Scenario, seed: str | None = None, decisions: Decisions | None = None) -> Played:
    """Play a scenario: with a seed chance is drawn, without one it is what `decisions` says."""
    stage = Stage(scenario, Chance(seed, decisions))
    stage.play()
    return Played(
        broken=tuple(dict.fromkeys(stage.checks.broken)),
        details=tuple(stage.checks.details),
        decisions=dict(stage.world.chance.taken),
        trace=tuple(stage.world.trace),
        points=tuple(stage.world.points),
    )


@dataclass
class Stage:
    """A scenario under way."""

    scenario: Scenario
    chance: Chance
    output: str = OUTPUT
    hand: int = -1
    """The step at which the user last deleted a published file."""
    world: World = field(init=False)
    store: SimulatedStore = field(init=False)
    input: Input = field(init=False)
    checks: Checks = field(init=False)
    platter: Platter | None = None
    """Of a scenario on a disk."""

    def __post_init__(self) -> None:
        self.world = World(self.chance)
        self.store = self._new_store()
        self.input = Input(self.world, self.scenario.form, dict(self.scenario.shards))
        self.world.objects.settle()
        self.checks = Checks(self.input)

    def _new_store(self) -> SimulatedStore:
        pages = self.scenario.page_files
        if not self.scenario.is_disk:
            return SimulatedStore(self.world, page_files=pages, knows_conditions=self.scenario.knows_conditions)
        self.platter = Platter(self.world.objects, OUTPUT)
        self.world.lose_power = self.platter.lose_power
        return DiskStore(self.world, page_files=pages, disk=SimulatedDisk(self.world, self.platter))

    def play(self) -> None:
        """The rounds, the healing, what comes after it, and the healing of that."""
        try:
            for number, each in enumerate(self.scenario.rounds):
                self._round(each, number)
            self._heal(self.scenario.healer)
            if self.scenario.afterwards and not self.checks.broken:
                self.world.watch = self.checks.guard(self.output)
                for number, each in enumerate(self.scenario.afterwards):
                    self._round(each, number)
                self._heal(replace(self.scenario.healer, name="Z"))
        except DeadlockError as error:
            self.checks.fail("deadlock", str(error))

    def _round(self, each: Round, number: int) -> None:
        if each.renames:
            self._rename(f"{OUTPUT}{number}")
        self.world.set_rates(each.rates)
        self.world.actions = [lambda action=action: self._act(action) for action in each.actions]
        commands = self.run(each.commands)
        if self._is_promised(each, commands):
            self._census("I1" if len(commands) > 1 else "I3", self._least_limit(commands))
        self.world.settle()

    def run(self, specs: tuple[Spec, ...]) -> list[Command]:
        """Commands that begin together, to their end."""
        self.world.processes.clear()
        commands = [Command(self.world, self.store, spec, self.input.inputs, self.output) for spec in specs]
        for command in commands:
            command.start()
        self.world.scheduler.run()
        for command in commands:
            for run in command.runs:
                self.checks.code(run)
                if not self.scenario.knows_conditions:
                    self.checks.warned(run)
        return commands

    def _is_promised(self, each: Round, commands: list[Command]) -> bool:
        """Whether I1 or I3 holds: all said 0, and one of the widest saw everything that could be seen."""
        runs = [command.runs[-1] for command in commands]
        if any(run.code != 0 for run in runs) or each.rates.stale or not self.scenario.knows_conditions:
            return False
        limit = self._least_limit(commands)
        widest = [run for run in runs if run.command.spec.since is None and run.command.spec.limit == limit]
        return any(self._saw_all(run) for run in widest)

    def _saw_all(self, run: Run) -> bool:
        looked = final_look(self.world.trace, run)
        return self.input.changed <= run.began and max(self.world.last_ghost_write, self.hand) < looked

    def _least_limit(self, commands: list[Command]) -> int | None:
        limits = [command.spec.limit for command in commands if command.spec.since is None]
        return None if None in limits or not limits else max(limit for limit in limits if limit is not None)

    def _heal(self, spec: Spec) -> None:
        """I2 and I3."""
        self.world.set_rates(self.scenario.healing)
        codes: list[object] = []
        for number in range(TRIES):
            (command,) = self.run((replace(spec, name=f"{spec.name}{number or ''}"),))
            run = command.runs[-1]
            if self.checks.is_refused(run) and spec.settings == self.scenario.healer.settings:
                spec = replace(spec, settings=3 - spec.settings)  # then the output is of the other configuration
                continue
            codes.append(run.code)
            if run.code == 0 or self.checks.is_without_samples(run):
                self._census("I3", None)
                self._try_other_settings(spec)
                return
        self.checks.fail("I2 never 0", f"exit codes {codes}")

    def _census(self, promise: str, limit: int | None) -> None:
        self.checks.census(promise, self.output, limit)
        if self.platter is not None:
            self.platter.lose_power(self.world.step)
            self.checks.census(f"{promise} power", self.output, limit)

    def _try_other_settings(self, spec: Spec) -> None:
        if self._has_settings:
            (command,) = self.run((replace(spec, name="O", settings=3 - spec.settings),))
            if command.code != 2:
                self.checks.fail("I4 not refused", f"exit code {command.code} with other settings")

    @property
    def _has_settings(self) -> bool:
        return any(spec.settings != 1 for each in self.scenario.rounds for spec in each.commands)

    def _rename(self, output: str) -> None:
        self.world.note("user", "rename", self.output, output)
        self.world.objects.rename(self.output, output, self.world.step)
        self.output = output
        self._sync()

    def _act(self, action: Action) -> None:
        """What the user does: with the input, or with published files."""
        kind, _, folder = action.kind.partition("delete-")
        if kind or not folder:
            self.input.act(action)
            return
        place = f"{self.output}/_chunks/done" if folder == "mark" else f"{self.output}/{folder}"
        if found := self.world.objects.below(place):
            uri = found[action.at % len(found)]
            self.world.note("user", "deletes", uri)
            self.world.objects.remove(uri, self.world.step)
            self.hand = self.world.step
            self._sync()

    def _sync(self) -> None:
        """What the user does on a disk is safe."""
        if self.platter is not None:
            self.platter.settle()
