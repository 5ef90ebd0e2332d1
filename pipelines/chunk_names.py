"""Names of chunks and their files. They depend on the content only, so repeating a chunk gives the same name.

Tested in tests/pipelines/planning/test_plan.py and tests/pipelines/dataset/test_marks.py.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from pipelines import storage

_RANGE = r"(?P<start>\d{7,})-(?P<stop>\d{7,})"
_COUNTS = r"\.ok(?P<ok>\d+)\.bad(?P<bad>\d+)(?:\.wait(?P<wait>\d+))?"


def _name_pattern(digits: int) -> str:
    shard, fingerprint, configuration = (
        f"(?P<{part}>[0-9a-f]{{{digits}}})" for part in ("shard", "fingerprint", "configuration")
    )
    return rf"(?P<name>.*-{shard}-{fingerprint}-{_RANGE}-{configuration})"


NAME = re.compile(_name_pattern(storage.HASH_DIGITS))
STEM = re.compile(NAME.pattern + rf"-(?P<outcome>[0-9a-f]{{{storage.HASH_DIGITS}}}){_COUNTS}")
OLD_NAME = re.compile(_name_pattern(storage.OLD_HASH_DIGITS))
OLD_MARK = re.compile(OLD_NAME.pattern + _COUNTS)


class ChunkName(NamedTuple):
    """The parts of a chunk's name."""

    text: str
    shard: str
    """Hash of the shard's URI."""
    fingerprint: str
    start: int
    stop: int
    configuration: str

    @classmethod
    def parse(cls, text: str) -> "ChunkName | None":
        """Parse a chunk's name; None for any other text."""
        match = NAME.fullmatch(text) or OLD_NAME.fullmatch(text)
        return None if match is None else cls.of(match)

    @classmethod
    def of(cls, match: re.Match[str]) -> "ChunkName":
        """Return the name that a pattern of this file has matched. All patterns have their groups in this order."""
        text, shard, fingerprint, start, stop, configuration = match.groups()[:6]
        return cls(text, shard, fingerprint, int(start), int(stop), configuration)

    @property
    def is_old(self) -> bool:
        """Whether the name is of version 0.1, with shorter hashes."""
        return len(self.shard) < storage.HASH_DIGITS


def chunk_name(stem: str, shard_uri: str, fingerprint: str, start: int, stop: int, configuration: str) -> str:
    """Return the name of a chunk, which depends on nothing but the arguments."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "_", stem)[:40] or "shard"
    return f"{safe}-{storage.short_hash(shard_uri)}-{fingerprint}-{start:07d}-{stop:07d}-{configuration}"


def version_stem(name: str, ok: int, failed: Iterable[int], waiting: Collection[int] = (), removals: int = 0) -> str:
    """Return the stem of the files of a finished chunk, which depends on its outcome.

    Args:
        name: The chunk's name.
        ok: Number of samples that did not fail.
        failed: Positions that failed.
        waiting: Those of the failed positions that wait for a later run.
        removals: How many versions with this outcome were removed before they had a mark. Their names are not reused.
    """
    positions = sorted(failed)
    outcomes = [f"{at} waits" if at in waiting else str(at) for at in positions]
    outcome = storage.short_hash(*outcomes, *([f"after {removals} removals"] if removals else []))
    return f"{name}-{outcome}.ok{ok}.bad{len(positions)}{f'.wait{len(waiting)}' if waiting else ''}"


def is_rows_file(uri: str, extension: str) -> bool:
    """Return whether a file in data/ has the name of a chunk's file, of this version or an earlier one."""
    stem, _, ending = uri.rsplit("/", 1)[-1].rpartition(".")
    return ending == extension and is_stem(stem)


def is_stem(text: str) -> bool:
    """Return whether a file name without its extension is that of a chunk, of this version or an earlier one."""
    return (STEM.fullmatch(text) or OLD_NAME.fullmatch(text)) is not None


def waiting_in(uri: str) -> int:
    """Return the number of waiting samples in the name of a chunk's file."""
    match = re.search(r"\.ok\d+\.bad\d+\.wait(\d+)(?:\.|$)", uri.rsplit("/", 1)[-1])
    return int(match[1]) if match else 0
