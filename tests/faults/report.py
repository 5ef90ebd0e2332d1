"""Results of fault rounds, stored as JSON and shown as a table in docs/reliability.md."""

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
    """Totals over the rounds of one fault."""

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
    """Rounds in which the run survived the fault, so that the command was not needed again."""
    most_runs: int = 0
    notes: tuple[dict[str, float], ...] = ()
    date: str = field(default_factory=lambda: date.today().isoformat())
    hardware: str = field(default_factory=lambda: f"{os.cpu_count()} cores, {platform.machine()}")

    @property
    def is_clean(self) -> bool:
        """Return whether nothing was lost, duplicated, torn or left unfinished."""
        return self.lost == self.duplicated == self.foreign == self.torn == self.unfinished == 0

    @property
    def command(self) -> str:
        """Return the command that produces this result."""
        return f"python -m tests.faults.rounds --fault {self.fault} --rounds {self.rounds} --seed {self.seed}"

    def with_outcome(self, outcome: Outcome) -> "Result":
        """Return the result with one more round."""
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
        """Return the result with one more round, which did not end."""
        return dataclasses.replace(self, rounds=self.rounds + 1, unfinished=self.unfinished + 1)


def table(results: Sequence[Result]) -> str:
    """Format the results as a Markdown table."""
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
    """Store a result in place of an earlier one of its fault, and update the document."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    content = {"command": result.command, **dataclasses.asdict(result)}
    (RECORDS / f"{result.fault}.json").write_text(json.dumps(content, indent=1) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), recorded()))


def recorded() -> list[Result]:
    """Load the stored results, sorted by name."""
    contents = (json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json")))
    kept = ({name: value for name, value in content.items() if name != "command"} for content in contents)
    return [Result(**{**values, "notes": tuple(values["notes"])}) for values in kept]


def begun(fault: str, seed: int) -> Result:
    """Return the stored result of this fault and seed, which can be continued, or an empty one."""
    kept = (result for result in recorded() if (result.fault, result.seed) == (fault, seed))
    return next(kept, Result(fault=fault, seed=seed))


def with_table(document: str, results: Sequence[Result]) -> str:
    """Return the document with the table of these results between its two markers."""
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    shown = table(results) if results else "Nothing has been measured yet."
    return f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}"
