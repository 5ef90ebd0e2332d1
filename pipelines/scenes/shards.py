"""The shards of an output of rendered scenes: their names, which of them count, and which scenes are missing.

Shards are aligned to a grid of one shard size, which the first command decides for an output and a seed. Concurrent
commands with different counts may still write shards that overlap, such as (20, 25) and (20, 30). Of these, a disjoint
set counts, which is the same for every command that lists the same shards; the others are removed when all of their
scenes are in shards that count. It does not matter which shards count, since the files of a scene depend only on its
seed and index.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.planning.intervals import cells, gaps
from pipelines.storage.store import FILES, Store

SHARD_NAME = re.compile(r"scenes-s(?P<seed>\d+)-(?P<width>\d+)x(?P<height>\d+)-(?P<start>\d{8,})-(?P<stop>\d{8,})\.tar")

Range = tuple[int, int]
"""Scenes [start, stop)."""


@dataclass(frozen=True, kw_only=True, order=True)
class SceneShard:
    """A tar of consecutive scenes of a seed, as described by its name."""

    seed: int
    size_px: tuple[int, int]
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of the file."""
        width_px, height_px = self.size_px
        return f"scenes-s{self.seed}-{width_px}x{height_px}-{self.start:08d}-{self.stop:08d}.tar"

    @classmethod
    def parse(cls, name: str) -> "SceneShard | None":
        """Parse the name of a file; None if it is not the name of a shard."""
        match = SHARD_NAME.fullmatch(name)
        if match is None:
            return None
        seed, width_px, height_px, start, stop = (int(text) for text in match.groups())
        return cls(seed=seed, size_px=(width_px, height_px), start=start, stop=stop)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What to render and to remove according to a listing of the shards of one seed."""

    missing: tuple[Range, ...]
    """Scenes to render: the missing ones of the first `count`, and those that are only in shards that do not count."""
    removable: tuple[SceneShard, ...]
    """Shards that do not count and whose scenes are all in shards that count."""

    @property
    def is_complete(self) -> bool:
        """Whether every scene exists exactly once."""
        return not self.missing and not self.removable


def survey(shards: Iterable[SceneShard], count: int) -> Survey:
    """Compare the shards of one seed with scenes [0, count)."""
    listed = sorted(set(shards))
    kept = disjoint(listed)
    taken = _ranges(kept)
    dropped = sorted({*listed} - {*kept})
    missing: list[Range] = []
    for start, stop in [(0, count), *_ranges(dropped)]:
        missing += list(gaps(start, stop, [*taken, *missing]))
    return Survey(
        missing=tuple(sorted(missing)),
        removable=tuple(shard for shard in dropped if not list(gaps(shard.start, shard.stop, taken))),
    )


def disjoint(shards: Iterable[SceneShard]) -> list[SceneShard]:
    """Return the shards that count: from the first scene on, the longest of each start, without overlaps."""
    kept: list[SceneShard] = []
    covered = 0
    for shard in sorted(shards, key=lambda shard: (shard.start, -shard.stop)):
        if shard.start >= covered:
            kept.append(shard)
            covered = shard.stop
    return kept


def on_grid(ranges: Iterable[Range], shard_size: int) -> list[Range]:
    """Split ranges at the multiples of the shard size, so that all commands split them in the same way."""
    return [cell for start, stop in ranges for cell in cells(start, stop, shard_size)]


def scenes_in(ranges: Iterable[Range]) -> int:
    """Return the number of scenes in ranges that do not overlap."""
    return sum(stop - start for start, stop in ranges)


@dataclass(frozen=True, kw_only=True)
class Series:
    """The scenes of one seed in one output, all of the same size."""

    output: str
    seed: int
    size_px: tuple[int, int]
    store: Store = FILES

    def uri(self, shard: SceneShard) -> str:
        """Return the URI of a shard."""
        return storage.join(self.output, shard.name)

    def shard(self, start: int, stop: int) -> SceneShard:
        """Return the shard of a range."""
        return SceneShard(seed=self.seed, size_px=self.size_px, start=start, stop=stop)

    def shards(self) -> list[SceneShard]:
        """List the shards of the output, without folders below it, and make them durable.

        Raises:
            SettingError: The output has scenes of this seed in another size, so that keys would repeat.
        """
        depth = self.output.count("/") + 1
        names = (uri.rsplit("/", 1)[-1] for uri in self.store.list_uris(self.output) if uri.count("/") == depth)
        parsed = [SceneShard.parse(name) for name in names]
        self.store.settle([self.output])
        shards = [shard for shard in parsed if shard is not None and shard.seed == self.seed]
        for shard in shards:
            if shard.size_px != self.size_px:
                raise self._other_size(f"{self.output} has {shard.name}")
        return shards

    def agree_on_shard_size(self, wanted: int, say: Callable[[str], None]) -> int:
        """Return the recorded shard size; if there is none, record `wanted`. Says so if they differ.

        Raises:
            SettingError: The output was started with images of another size.
        """
        uri = storage.join(self.output, "_scenes", f"seed-{self.seed}.json")
        recorded, size_px = self._recorded(uri, wanted, say)
        if size_px != self.size_px:
            raise self._other_size(
                f"according to {uri}, it was started with scenes of {size_px[0]}x{size_px[1]} (if that was a mistake, "
                "delete that file)"
            )
        if recorded != wanted:
            say(
                f"shards of {recorded} scenes, as this output was started; a shard size of {wanted} is not used. An "
                "output has one shard size for each seed, so that concurrent commands split scenes in the same way. To "
                f"change it, delete {uri} while no command is working on this output."
            )
        return recorded

    def _recorded(self, uri: str, wanted: int, say: Callable[[str], None]) -> tuple[int, tuple[int, int]]:
        content = json.dumps({"shard_size": wanted, "size_px": self.size_px}).encode()
        if not self.store.exists(uri):
            self.store.create_once(uri, content)
        if (record := _parse_record(self.store.read_bytes(uri))) is None:
            say(f"{uri} is damaged and is written again")
            self.store.publish(uri, content)
            record = _parse_record(self.store.read_bytes(uri))
        return record or (wanted, self.size_px)

    def _other_size(self, found: str) -> SettingError:
        return SettingError(
            f"--size {self.size_px[0]}x{self.size_px[1]}: an output contains the scenes of a seed in one size only, "
            f"because keys are unique; {found}. Choose another --output."
        )


def _parse_record(content: bytes) -> tuple[int, tuple[int, int]] | None:
    """Return the recorded shard size and image size; None if the record is damaged."""
    try:
        record = json.loads(content)
        shard_size, (width_px, height_px) = int(record["shard_size"]), record["size_px"]
        return (shard_size, (int(width_px), int(height_px))) if shard_size > 0 else None
    except (ValueError, KeyError, TypeError):
        return None


def _ranges(shards: Sequence[SceneShard]) -> list[Range]:
    return [(shard.start, shard.stop) for shard in shards]
