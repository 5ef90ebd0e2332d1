"""Play a scenario and report which invariants were broken.

I1  When all commands have exited with 0, every sample is in the output exactly once and every mark is correct; on a
    disk this also holds after a power loss.
I2  The same command, run alone at most TRIES times, reaches exit code 0.
I3  When a command that ran alone exits with 0, I1 holds immediately.
I4  No command ends with an exception, and of two configurations one is refused with exit code 2.
I5  On a correct output, commands never lose a good row, whatever is killed.

I1 and I3 cover only what a command can know. They exclude what the workers of a killed command write, and what the user
changes, after the command has scanned its input for the last time. I2 holds even then.
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
    """The result of a scenario."""

    broken: tuple[str, ...]
    """The broken invariants, such as `I1 lost`."""
    details: tuple[str, ...]
    decisions: Decisions
    """The random decisions."""
    trace: tuple[Step, ...]
    points: tuple[tuple[Place, str, str], ...]
    """(place, operation, URI) of every point at which an event may happen."""


def play(scenario: Scenario, seed: str | None = None, decisions: Decisions | None = None) -> Played:
    """Play a scenario with decisions that are drawn from `seed`, or replayed from `decisions` if there is no seed."""
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
    """A scenario that is being played."""

    scenario: Scenario
    chance: Chance
    output: str = OUTPUT
    hand: int = -1
    """Step at which the user last deleted a published file."""
    world: World = field(init=False)
    store: SimulatedStore = field(init=False)
    input: Input = field(init=False)
    checks: Checks = field(init=False)
    platter: Platter | None = None
    """The disk, if the scenario is on a disk."""

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
        """Play the rounds and the repair, then the rounds that follow it and their repair."""
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
        """Start commands together and run them to their end."""
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
        """Return whether I1 or I3 must hold: all exit codes are 0, and one with the largest limit saw everything."""
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
        """Check I2 and I3."""
        self.world.set_rates(self.scenario.healing)
        codes: list[object] = []
        for number in range(TRIES):
            (command,) = self.run((replace(spec, name=f"{spec.name}{number or ''}"),))
            run = command.runs[-1]
            if self.checks.is_refused(run) and spec.settings == self.scenario.healer.settings:
                spec = replace(spec, settings=3 - spec.settings)  # the output belongs to the other configuration
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
        """Perform an action of the user on the input or on published files."""
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
        """Make the changes of the user on a disk durable."""
        if self.platter is not None:
            self.platter.settle()
