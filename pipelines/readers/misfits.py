"""Telling one shard that does not match the settings from settings that match no shard."""

from collections import Counter

from pipelines.errors import MisfitError
from pipelines.readers.shard_index import MeasuredShard

MAX_MISFITS = 64
"""If this many files of a format lack what the settings need and none has it, the settings are wrong."""


class Misfits:
    """Collects the shards that do not match the settings, separately for each format."""

    def __init__(self) -> None:
        self._first: dict[str, MisfitError] = {}
        self._count: Counter[str] = Counter()
        self._fitting: set[str] = set()

    def add(self, found: MeasuredShard) -> None:
        """Add the next shard. Raises SettingError when there have been enough and none of them matches."""
        kind = found.shard.format
        if found.misfit is None:
            if not found.damage or found.samples > 1:
                self._fitting.add(kind)
            return
        self._first.setdefault(kind, found.misfit)
        self._count[kind] += 1
        if self._count[kind] >= MAX_MISFITS:
            self.check()

    def check(self) -> None:
        """Raise the error of the first shard of a format of which some shards do not match and none does."""
        for kind, error in self._first.items():
            if kind not in self._fitting:
                raise error
