"""The simulated input: shards of real bytes, and a user who changes them while commands run.

A sample is a key and a version number. Its file contains both, so a row shows which content it was made from.
Samples whose keys begin with `x` always fail; those whose keys begin with `k` kill the process that works on them.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tests.simulation.world import World

ROOT = "sim://bucket/in"
IMAGES = "sim://bucket/images"
FORMS = ("tar", "folder", "jsonl")
Samples = tuple[tuple[str, int], ...]
"""Pairs of key and version, in the order of the shard."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action of the user. Indexes are taken modulo the number of items, so any action is possible at any time."""

    kind: str
    """One of ACTIONS, or a deletion of published files (see `play.Stage`)."""
    shard: int = 0
    at: int = 0


class Input:
    """Shards by name, and their files in the simulated storage."""

    def __init__(self, world: World, form: str, shards: Mapping[str, Samples]) -> None:
        self.world = world
        self.form = form
        self.shards: dict[str, Samples] = {}
        self.ever: set[tuple[str, str]] = set()
        """(shard URI, key) of every sample that has ever existed."""
        self.changed = -1
        """The step of the last change."""
        self._kept: dict[str, Samples] = {}
        for name, samples in shards.items():
            self.set(name, samples)

    @property
    def inputs(self) -> list[str]:
        """Return the inputs on the command line."""
        return [f"{ROOT}/*"] if self.form == "folder" else [ROOT]

    def uri(self, name: str) -> str:
        """Return the URI of a shard."""
        return f"{ROOT}/{name}" if self.form == "folder" else f"{ROOT}/{name}.{self.form}"

    def key(self, key: str) -> str:
        """Return the key of a sample as it appears in rows."""
        return f"{key}.jpg" if self.form == "folder" else key

    def expected(self, names: Iterable[str]) -> dict[tuple[str, str], int]:
        """Return the current version of each (shard URI, key) in these shards."""
        return {(self.uri(name), self.key(key)): version for name in names for key, version in self.shards[name]}

    def covered(self, limit: int | None) -> dict[str, int]:
        """Return how many of the first samples of each shard a command with this limit covers, in reading order."""
        left = sum(map(len, self.shards.values())) if limit is None else limit
        covered: dict[str, int] = {}
        for name in sorted(self.shards):
            here = min(left, len(self.shards[name]))
            if here or (not self.shards[name] and self.form != "folder" and (left or limit is None)):
                covered[name] = here
            left -= here
        return covered

    def set(self, name: str, samples: Samples) -> None:
        """Replace the samples of a shard."""
        before = self.shards.get(name, ())
        self.shards[name] = samples
        self.ever |= {(self.uri(name), self.key(key)) for key, _ in samples}
        self.changed = self.world.step
        objects, step = self.world.objects, self.world.step
        if self.form == "tar":
            objects.put(self.uri(name), tar_bytes(samples), step)
        elif self.form == "jsonl":
            objects.put(self.uri(name), json_lines(samples), step)
            for key, version in samples:
                objects.put(f"{IMAGES}/{key}.{version}.jpg", content(key, version), step)
        else:
            for key in dict(before).keys() - dict(samples).keys():
                objects.remove(f"{self.uri(name)}/{key}.jpg", step)
            for key, version in samples:
                if (key, version) not in before:
                    objects.put(f"{self.uri(name)}/{key}.jpg", content(key, version), step)

    def act(self, action: Action) -> None:
        """Carry out one of ACTIONS."""
        names = sorted(self.shards)
        name = names[action.shard % len(names)]
        changed = ACTIONS[action.kind](self, name, action.at)
        if changed is not None:
            self.set(name, changed)
        self.world.note("user", action.kind, self.uri(name), " ".join(f"{k}v{v}" for k, v in self.shards[name]))

    def _change(self, name: str, at: int) -> Samples | None:
        samples = self.shards[name]
        here = at % max(len(samples), 1)
        return tuple((key, version + (number == here)) for number, (key, version) in enumerate(samples)) or None

    def _change_all(self, name: str, at: int) -> Samples | None:
        self._kept[name] = self.shards[name]
        return tuple((key, version + 10) for key, version in self.shards[name]) or None

    def _restore(self, name: str, at: int) -> Samples | None:
        return self._kept.get(name)

    def _add(self, name: str, at: int) -> Samples | None:
        new = f"{at % 10}n{len(self.ever)}"
        return tuple(sorted((*self.shards[name], (new, 0))))

    def _delete(self, name: str, at: int) -> Samples | None:
        samples = self.shards[name]
        others = sum(map(len, self.shards.values())) - len(samples)
        if len(samples) < 2 and not others:
            return None
        return tuple(sample for number, sample in enumerate(samples) if number != at % len(samples))

    def _empty(self, name: str, at: int) -> Samples | None:
        others = sum(len(samples) for other, samples in self.shards.items() if other != name)
        self._kept[name] = self.shards[name] or self._kept.get(name, ())
        return () if others or self.form == "tar" else None

    def _new_shard(self, name: str, at: int) -> Samples | None:
        new = "abcdefgh"[len(self.shards)]
        if len(self.shards) < 4:
            self.set(new, tuple((f"{number}", 0) for number in range(1 + at % 5)))
        return None


ACTIONS: Mapping[str, Callable[[Input, str, int], Samples | None]] = {
    "change": Input._change,
    "change-all": Input._change_all,
    "restore": Input._restore,
    "add": Input._add,
    "delete": Input._delete,
    "empty": Input._empty,
    "new-shard": Input._new_shard,
}


def content(key: str, version: int) -> bytes:
    """Return the content of a sample's image file."""
    return f"{key} v{version}".encode()


@lru_cache(1000)
def tar_bytes(samples: Samples) -> bytes:
    """Return a real tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, version in samples:
            info = tarfile.TarInfo(f"{key}.jpg")
            info.size = len(content(key, version))
            tar.addfile(info, io.BytesIO(content(key, version)))
    return buffer.getvalue()


def json_lines(samples: Samples) -> bytes:
    """Return JSON Lines that refer to the images."""
    lines = (json.dumps({"key": key, "image": f"{IMAGES}/{key}.{version}.jpg"}) + "\n" for key, version in samples)
    return "".join(lines).encode()
