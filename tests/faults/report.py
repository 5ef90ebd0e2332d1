"""What rounds of faults have given: kept as JSON, shown as a table, written into docs/reliability.md."""

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from tests.faults.work import Outcome
from tests.support.paths import PROJECT_ROOT

DOCUMENT = PROJECT_ROOT / "docs" / "reliability.md"
RECORDS = PROJECT_ROOT / "benchmarks" / "results" / "faults"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Sums over the rounds of one fault."""

    fault: str
    seed: int
    rounds: int = 0
    lost: int = 0
    duplicated: int = 0
    foreign: int = 0
    torn: int = 0
    temporary: int = 0
    unfinished: int = 0
    """Rounds that did not end with exit code 0."""
    survived: int = 0
    """Rounds in which the run itself got over the fault, and the command was not needed again."""
    most_runs: int = 0
    notes: tuple[dict[str, float], ...] = ()
    date: str = field(default_factory=lambda: date.today().isoformat())
    hardware: str = field(default_factory=lambda: f"{os.cpu_count()} cores, {platform.machine()}")

    @property
    def is_clean(self) -> bool:
        """Nothing lost, doubled, torn or left undone."""
        return self.lost == self.duplicated == self.foreign == self.torn == self.unfinished == 0

    @property
    def command(self) -> str:
        """What gives such a result."""
        return f"python -m tests.faults.rounds --fault {self.fault} --rounds {self.rounds} --seed {self.seed}"

    def with_outcome(self, outcome: Outcome) -> "Result":
        """One round more."""
        tally = outcome.tally
        return dataclasses.replace(
            self,
            rounds=self.rounds + 1,
            lost=self.lost + tally.lost,
            duplicated=self.duplicated + tally.duplicated,
            foreign=self.foreign + tally.foreign,
            torn=self.torn + tally.torn,
            temporary=self.temporary + tally.temporary,
            unfinished=self.unfinished + (outcome.exit_codes[-1] != 0),
            survived=self.survived + (outcome.exit_codes[0] == 0),
            most_runs=max(self.most_runs, len(outcome.exit_codes)),
            notes=(*self.notes, dict(outcome.notes)) if outcome.notes else self.notes,
        )

    def with_failure(self) -> "Result":
        """One round more, which did not end."""
        return dataclasses.replace(self, rounds=self.rounds + 1, unfinished=self.unfinished + 1)


def table(results: Sequence[Result]) -> str:
    """As Markdown."""
    lines = [
        "| fault | rounds | rows lost | rows duplicated | torn files | not ended | survived | most runs | measured |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        numbers = (result.rounds, result.lost, result.duplicated + result.foreign, result.torn, result.unfinished)
        cells = [result.fault, *numbers, result.survived, result.most_runs]
        measured = f"seed {result.seed}, {result.date}, {result.hardware}"
        lines.append("| " + " | ".join(str(cell) for cell in [*cells, measured]) + " |")
    return "\n".join(lines)


def record(result: Result) -> None:
    """Keep a result in place of an earlier one of its fault, and bring the document up to date."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    content = {"command": result.command, **dataclasses.asdict(result)}
    (RECORDS / f"{result.fault}.json").write_text(json.dumps(content, indent=1) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), recorded()))


def recorded() -> list[Result]:
    """The kept results, by name."""
    contents = (json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json")))
    kept = ({name: value for name, value in content.items() if name != "command"} for content in contents)
    return [Result(**{**values, "notes": tuple(values["notes"])}) for values in kept]


def begun(fault: str, seed: int) -> Result:
    """The kept rounds of this fault and seed, to be gone on with, or none."""
    kept = (result for result in recorded() if (result.fault, result.seed) == (fault, seed))
    return next(kept, Result(fault=fault, seed=seed))


def with_table(document: str, results: Sequence[Result]) -> str:
    """The document with the table of these results between its two marks."""
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    shown = table(results) if results else "Nothing has been measured yet."
    return f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}"
