"""What planning must know of each shard: how many samples, where to enter, which keys repeat, what is damaged.

It costs the footer and the key column of a Parquet shard, the lines of a JSON file, and one walk over the headers of a
tar, kept in the output root for the next run.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from itertools import islice

from pipelines.damage import is_damage, reason_of
from pipelines.errors import MisfitError, SettingError, ShardChangedError
from pipelines.readers import json_lines
from pipelines.readers.parquet import index_parquet
from pipelines.readers.shard_index import Measured, TarIndex
from pipelines.readers.shards import Shard, format_of
from pipelines.readers.tar_index import _tar_index
from pipelines.samples import Columns
from pipelines.storage.store import FILES, Store, map_concurrently
from pipelines.texts import clipped

PLANNING_THREADS = 16


MISFITS_BELIEVED = 64
"""When this many files of a format lack what the settings need and none has it, the settings are wrong."""


def measure(
    shards: list[Shard], columns: Columns, output: str, limit: int | None = None, store: Store = FILES
) -> list[Measured]:
    """Count the samples of each shard, several at once, stopping when `limit` is reached; checks the columns.

    Shards of which the limit leaves nothing are left out; those that have no samples at all stay, because rows of what
    they were before may have to go.

    Raises:
        SettingError: a named column does not exist or has a wrong type in every file that was looked at.
    """
    measured: list[Measured] = []
    misfits = Misfits()
    total = 0
    pending = iter(shards)
    while batch := list(islice(pending, PLANNING_THREADS)):
        for found in map_concurrently(
            store, lambda shard: _measure(shard, columns, output, store), batch, PLANNING_THREADS
        ):
            misfits.add(found)
            if limit is not None:
                found = shortened(found, limit - total)
            total += found.samples
            measured.append(found)
        if limit is not None and total >= limit:
            break
    misfits.check()
    return without_emptied(measured)


class Misfits:
    """Tells files that do not go with the settings from settings that go with no file, for each format apart."""

    def __init__(self) -> None:
        self._first: dict[str, MisfitError] = {}
        self._count: Counter[str] = Counter()
        self._fitting: set[str] = set()

    def add(self, found: Measured) -> None:
        """The next shard. Raises SettingError when there were enough of which none fits."""
        kind = found.shard.format
        if found.misfit is None:
            if not found.damage or found.samples > 1:
                self._fitting.add(kind)
            return
        self._first.setdefault(kind, found.misfit)
        self._count[kind] += 1
        if self._count[kind] >= MISFITS_BELIEVED:
            self.check()

    def check(self) -> None:
        """Raises SettingError, of the first file, where a format has files that do not fit and none that does."""
        for kind, error in self._first.items():
            if kind not in self._fitting:
                raise error


def shortened(found: Measured, samples: int) -> Measured:
    """The shard's first `samples` samples, where it has more."""
    return dataclasses.replace(found, samples=min(found.samples, max(samples, 0)))


def without_emptied(measured: list[Measured]) -> list[Measured]:
    """Those of which a limit has left something, and those that never had anything."""
    return [found for found in measured if found.samples > 0 or found.total == 0]


def whole(shard: Shard, index: TarIndex | None, samples: int, damage: str = "") -> Measured:
    """A shard with this number of readable samples; if it is damaged, one more position stands for the rest."""
    total = samples + bool(damage)
    return Measured(shard=shard, samples=total, total=total, index=index, damage=damage)


def ignored_members(measured: list[Measured]) -> str:
    """A line about the files within tars that are part of no sample; empty where there are none."""
    found = [(each.shard, each.index) for each in measured if each.index is not None and each.index.ignored]
    if not found:
        return ""
    shard, index = found[0]
    count = sum(index.ignored for _, index in found)
    return (
        f"left out of {len(found)} tars: {count} files that are not called KEY.EXTENSION, such as "
        f"{clipped(index.ignored_name)!r} in {shard.uri}"
    )


def measure_shard(shard: Shard, understand: Callable[[], Measured]) -> Measured:
    """What `understand` returns; a shard that it cannot understand is one error row: others must not wait for it.

    Raises:
        ShardChangedError: the shard is another file than was listed, or has gone.
    """
    try:
        return understand()
    except FileNotFoundError as error:
        raise ShardChangedError(f"{shard.uri} has gone since it was listed; the same command lists it again") from error
    except MisfitError as error:
        message = clipped(str(error).replace(shard.uri, shard.uri.rsplit("/", 1)[-1]))
        damage = f"the {shard.format} file does not go with the settings: {message}"
        return dataclasses.replace(whole(shard, None, 0, damage), misfit=error)
    except Exception as error:
        if not is_damage(error):
            raise
        return whole(shard, None, 0, f"the {shard.format} file cannot be read: {reason_of(error)}")


def _measure(shard: Shard, columns: Columns, output: str, store: Store) -> Measured:
    pinned = store.pinned({shard.uri: shard.fingerprint})
    return measure_shard(shard, lambda: _understood(shard, columns, output, pinned))


def _understood(shard: Shard, columns: Columns, output: str, store: Store) -> Measured:
    if shard.format == "parquet":
        index = index_parquet(shard.uri, columns, store)
        return whole(shard, index, index.samples)
    if columns.where:
        raise SettingError(f"--where {columns.where[0]!r} needs Parquet files; {shard.uri} is none.")
    if shard.format == "folder":
        return whole(shard, None, sum(format_of(file.uri) == "image" for file in shard.files))
    if shard.format == "jsonl":
        index = json_lines.index_json_lines(shard.uri, columns, store)
        return whole(shard, index, index.samples)
    shard, index = _tar_index(shard, output, store)
    return whole(shard, index, index.samples, index.damage)
