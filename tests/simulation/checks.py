"""Checks of the invariants that `play` lists."""

from collections.abc import Callable, Iterable

from pipelines.errors import SettingError
from tests.simulation.census import census, rows
from tests.simulation.commands import KILLED, Run
from tests.simulation.contents import ROOT, Input
from tests.simulation.world import Step

OTHER_SETTINGS, NO_SAMPLES, WARNING = "other settings", "no samples", "conditional writes"


class Checks:
    """Collects the invariants that were broken so far."""

    def __init__(self, input_: Input) -> None:
        self.input = input_
        self.broken: list[str] = []
        self.details: list[str] = []

    def fail(self, what: str, detail: str) -> None:
        """Record a broken invariant."""
        self.broken.append(what)
        self.details.append(f"{what}: {detail}")

    def census(self, promise: str, output: str, limit: int | None) -> None:
        """Check that every sample covered by a command with this limit is in the output exactly once."""
        covered = self.input.covered(limit)
        expected = self.input.expected(covered)
        samples = [(name, key) for name, count in covered.items() for key, _ in self.input.shards[name][:count]]
        may_stay = self.input.ever - expected.keys() if self.input.form == "folder" else set()
        found = census(
            dict(self.input.world.objects),
            output,
            [self.input.uri(name) for name in covered],
            expected,
            may_stay,
            [(self.input.uri(name), self.input.key(key)) for name, key in samples],
        )
        for name in found.wrong:
            self.fail(f"{promise} {name}", str(found))

    def code(self, run: Run) -> None:
        """Check I4 for one run."""
        if isinstance(run.code, str) and run.code != KILLED:
            self.fail(f"I4 {run.code}", f"{run.name}: {run.error}")
        elif run.code == 2 and not (self.is_refused(run) or self.is_without_samples(run)):
            self.fail("I4 refused", f"{run.name}: {run.error}")

    def is_refused(self, run: Run) -> bool:
        """Return whether the run was refused because the output has another configuration."""
        return isinstance(run.error, SettingError) and OTHER_SETTINGS in str(run.error)

    def is_without_samples(self, run: Run) -> bool:
        """Return whether the run found no samples."""
        return isinstance(run.error, SettingError) and NO_SAMPLES in str(run.error)

    def warned(self, run: Run) -> None:
        """Check that a run warns of a storage that ignores conditional writes."""
        if run.code in (0, 1) and not any(WARNING in text for text in run.said):
            self.fail("no warning", f"{run.name} reported {run.said}")

    def guard(self, output: str) -> Callable[[str, str], None]:
        """Return a hook that checks I5: that no removal loses one of the present good rows."""
        objects = self.input.world.objects
        good = self._good(output)

        def watch(what: str, uri: str) -> None:
            if what == "del" and uri.startswith(f"{output}/data/"):
                content = objects.files.pop(uri, None)
                lost = good - self._good(output)
                if content is not None:
                    objects.files[uri] = content
                if lost:
                    self.fail("I5 lost", f"{sorted(lost)} with {uri}")

        return watch

    def _good(self, output: str) -> set[tuple[str, str, str]]:
        found = rows(dict(self.input.world.objects), output, "data")
        return {(row["shard"], row["key"], row["value"]) for row in found}


def final_look(trace: Iterable[Step], run: Run) -> int:
    """Return the step at which a run began its last scan: it lists the output, then reads its input."""
    look, listing, before = -1, -1, ""
    for step in trace:
        if step.who != run.name:
            continue
        if step.what == "list" and step.uri.endswith("/_chunks/done") and step.uri != before:
            listing = step.number
        elif step.what == "stat" and step.uri in PLACES:
            look = listing
        before = step.uri if step.what == "list" else ""
    return look


PLACES = (ROOT, f"{ROOT}/*")
