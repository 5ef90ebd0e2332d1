"""Measuring shards for planning: how many samples, where a reader can enter, which keys repeat, what is damaged.

It costs the footer and the key column of a Parquet file, the lines of a JSON lines file, and one pass over the headers
of a tar, which is kept in the output for the next run.
"""

import dataclasses
from collections.abc import Callable
from itertools import islice

from pipelines.errors import MisfitError, SettingError, ShardChangedError, clipped
from pipelines.readers.formats import format_called
from pipelines.readers.misfits import Misfits
from pipelines.readers.shard_index import MeasuredShard, Shard
from pipelines.samples import Columns
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.store import FILES, PLANNING_THREADS, Store, map_concurrently


def measure(
    shards: list[Shard], columns: Columns, output: str, limit: int | None = None, store: Store = FILES
) -> list[MeasuredShard]:
    """Count the samples of the shards and check their columns, several shards at once.

    Stops when `limit` samples are reached. Shards of which the limit leaves nothing are left out. Those that have no
    samples at all stay, because rows of their former content may have to be removed.

    Raises:
        SettingError: a named column is missing or of the wrong type in every file that was read.
    """
    measured: list[MeasuredShard] = []
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


def shortened(found: MeasuredShard, samples: int) -> MeasuredShard:
    """Limit a shard to its first `samples` samples."""
    return dataclasses.replace(found, samples=min(found.samples, max(samples, 0)))


def without_emptied(measured: list[MeasuredShard]) -> list[MeasuredShard]:
    """Drop the shards of which a limit has left nothing, but not those that never had samples."""
    return [found for found in measured if found.samples > 0 or found.total == 0]


def ignored_members(measured: list[MeasuredShard]) -> str:
    """Return a line about the files within tars that are part of no sample; empty if there are none."""
    found = [(each.shard, each.index) for each in measured if each.index is not None and each.index.ignored]
    if not found:
        return ""
    shard, index = found[0]
    count = sum(index.ignored for _, index in found)
    return (
        f"left out of {len(found)} tars: {count} files that are not called KEY.EXTENSION, such as "
        f"{clipped(index.ignored_name)!r} in {shard.uri}"
    )


def measure_shard(shard: Shard, measure: Callable[[], MeasuredShard]) -> MeasuredShard:
    """Return what `measure` returns, or one error row for a shard that it cannot read, so that other shards go on.

    Raises:
        ShardChangedError: the shard is not the file that was listed, or is gone.
    """
    try:
        return measure()
    except FileNotFoundError as error:
        raise ShardChangedError(f"{shard.uri} has gone since it was listed; the same command lists it again") from error
    except MisfitError as error:
        message = clipped(str(error).replace(shard.uri, shard.uri.rsplit("/", 1)[-1]))
        damage = f"the {shard.format} file does not match the settings: {message}"
        return dataclasses.replace(MeasuredShard.of(shard, None, 0, damage), misfit=error)
    except Exception as error:
        if not is_damage(error):
            raise
        return MeasuredShard.of(shard, None, 0, f"the {shard.format} file cannot be read: {reason_of(error)}")


def _measure(shard: Shard, columns: Columns, output: str, store: Store) -> MeasuredShard:
    pinned = store.pinned({shard.uri: shard.fingerprint})
    form = format_called(shard.format)
    if columns.where and not form.has_predicates:
        raise SettingError(f"--where {columns.where[0]!r} needs Parquet files; {shard.uri} is none.")
    return measure_shard(shard, lambda: form.measure(shard, columns, output, pinned))
