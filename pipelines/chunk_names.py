"""Names of chunks and of their files: a function of the content, so that doing a chunk twice gives the same name."""

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
    """A chunk's name, taken apart."""

    text: str
    shard: str
    """Hash of the shard's URI."""
    fingerprint: str
    start: int
    stop: int
    configuration: str

    @classmethod
    def parse(cls, text: str) -> "ChunkName | None":
        """None for a text that is no chunk's name."""
        match = NAME.fullmatch(text) or OLD_NAME.fullmatch(text)
        return None if match is None else cls.of(match)

    @classmethod
    def of(cls, match: re.Match[str]) -> "ChunkName":
        """The name in what a pattern of this file has matched; the groups of all of them are in this order."""
        text, shard, fingerprint, start, stop, configuration = match.groups()[:6]
        return cls(text, shard, fingerprint, int(start), int(stop), configuration)

    @property
    def is_old(self) -> bool:
        """Whether version 0.1 gave it, with hashes of fewer digits."""
        return len(self.shard) < storage.HASH_DIGITS


def chunk_name(stem: str, shard_uri: str, fingerprint: str, start: int, stop: int, configuration: str) -> str:
    """The name of a chunk: a function of its arguments and of nothing else."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "_", stem)[:40] or "shard"
    return f"{safe}-{storage.short_hash(shard_uri)}-{fingerprint}-{start:07d}-{stop:07d}-{configuration}"


def version_stem(name: str, ok: int, failed: Iterable[int], waiting: Collection[int] = (), removals: int = 0) -> str:
    """The name of the files of a finished chunk: which positions failed, which of these wait, how many did not fail.

    removals: how many versions of this outcome were removed before they had a mark; their names are not used again.
    """
    positions = sorted(failed)
    outcomes = [f"{at} waits" if at in waiting else str(at) for at in positions]
    outcome = storage.short_hash(*outcomes, *([f"after {removals} removals"] if removals else []))
    return f"{name}-{outcome}.ok{ok}.bad{len(positions)}{f'.wait{len(waiting)}' if waiting else ''}"


def is_rows_file(uri: str, extension: str) -> bool:
    """Whether a file in data/ is called as those of chunks are, by this version or an earlier one."""
    stem, _, ending = uri.rsplit("/", 1)[-1].rpartition(".")
    return ending == extension and is_stem(stem)


def is_stem(text: str) -> bool:
    """Whether a name without its extension is one of a chunk's version, of this program or an earlier one."""
    return (STEM.fullmatch(text) or OLD_NAME.fullmatch(text)) is not None


def waiting_in(uri: str) -> int:
    """How many samples wait, by the name of a file of a version."""
    match = re.search(r"\.ok\d+\.bad\d+\.wait(\d+)(?:\.|$)", uri.rsplit("/", 1)[-1])
    return int(match[1]) if match else 0
