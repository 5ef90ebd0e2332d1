"""A file that adds up the schedules of many invocations, as long as the simulated code stays the same.

Tested in tests/simulation/test_record.py.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.campaign import Batch, Kind, Tally

ROOT = Path(__file__).resolve().parents[2]
SIMULATED = ("pipelines", "tests/simulation")
"""Folders whose Python files decide how a schedule ends."""
WRITE_EVERY_S = 10.0


def code_sha256() -> str:
    """Return a hash of the simulated code and of the simulation."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in SIMULATED for path in (ROOT / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass(kw_only=True)
class Record:
    """The tallies of all invocations on one state of the code."""

    path: Path
    code: str = field(default_factory=code_sha256)
    tallies: dict[Kind, Tally] = field(default_factory=dict)
    first: int | None = None
    """The first seed that no invocation has begun; None in a new record."""
    _written_s: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read a record. That of other code starts from nothing, with seeds after those in the file."""
        record = cls(path=path)
        if path.exists():
            found = json.loads(path.read_text())
            record.first = int(found["next_seed"])
            if found["code_sha256"] == record.code:
                record.tallies = {tally.kind: tally for tally in map(_tally, found["kinds"])}
        return record

    def add(self, batch: Batch) -> None:
        """Add a batch, and write the file from time to time."""
        self.tallies.setdefault(batch.kind, Tally(kind=batch.kind)).add(batch)
        self.first = max(self.first or 0, batch.first + batch.count)
        if time.monotonic() - self._written_s > WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the file, in place of an earlier one."""
        tallies = list(self.tallies.values())
        content = {
            "schedules": sum(tally.schedules for tally in tallies),
            "broken": sum(len(tally.broken) for tally in tallies),
            "code_sha256": self.code,
            "next_seed": self.first or 0,
            "kinds": [tally.as_json() for tally in tallies],
        }
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self.path)
        self._written_s = time.monotonic()


def _tally(found: Mapping[str, Any]) -> Tally:
    kind = Kind(features=found["features"], form=found["form"])
    broken = {int(number): what for number, what in found["broken"].items()}
    return Tally(kind=kind, schedules=found["schedules"], broken=broken)
