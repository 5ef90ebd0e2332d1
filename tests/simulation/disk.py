"""A local disk that may lose power, under the real functions of `pipelines.storage.local_files`.

Each primitive operation is a point of its own. Names are safe once their folder is synced, contents once their file is:
after a loss of power any part of the other changes of names has happened, and contents that were not synced are torn.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.storage import local_files
from pipelines.storage.file_info import FileInfo, is_temporary
from tests.simulation.objects import Objects, Stored
from tests.simulation.store import SimulatedStore
from tests.simulation.world import World

Names = dict[str, Stored]
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp$")


class Renaming(NamedTuple):
    """A change of names that is not safe yet: from the first name to the second, where there are both."""

    source: str
    target: str
    file: Stored | None


class Platter:
    """What survives a loss of power, beside what the processes see (`Objects`)."""

    def __init__(self, objects: Objects, root: str) -> None:
        """root: what lies elsewhere is always safe."""
        self.objects = objects
        self.root = root
        self._safe: Names = dict(objects.files)
        self._changes: list[Renaming] = []
        self._torn: set[int] = set()
        """Contents that are not synced, by the identity of their `Stored`."""
        self._kept: list[Stored] = []
        """So that no identity is used twice."""

    def settle(self) -> None:
        """All that is there is safe."""
        self._safe, self._changes = dict(self.objects.files), []
        self._torn.clear()

    def write(self, path: str, content: bytes, step: int) -> None:
        """A new file, nothing of which is safe."""
        self.objects.put(path, content, step)
        stored = self.objects.files[path]
        self._torn.add(id(stored))
        self._kept.append(stored)
        self._changes.append(Renaming("", path, stored))

    def sync(self, path: str) -> None:
        """The content is safe."""
        if path in self.objects.files:
            self._torn.discard(id(self.objects.files[path]))

    def sync_folder(self, folder: str) -> None:
        """The names in a folder are safe."""
        here = [change for change in self._changes if _folder(change) == folder]
        self._changes = [change for change in self._changes if _folder(change) != folder]
        for change in here:
            _apply(self._safe, change)

    def rename(self, source: str, target: str, step: int) -> None:
        """In one step."""
        if source not in self.objects.files:
            raise FileNotFoundError(source)
        self._rename(source, target, step)

    def link(self, source: str, target: str, step: int) -> None:
        """A second name."""
        if target in self.objects.files:
            raise FileExistsError(target)
        self._rename("", target, step, self.objects.files[source])

    def remove(self, path: str, step: int) -> None:
        """Delete a name."""
        if path in self.objects.files:
            self.objects.remove(path, step)
            self._changes.append(Renaming(path, "", None))

    def lose_power(self, number: int) -> None:
        """Any part of what is not safe has happened; `number` says which."""
        rng = random.Random(number)
        elsewhere = {path: file for path, file in self.objects.files.items() if not path.startswith(self.root)}
        for change in self._changes:
            if rng.random() < 0.5:
                _apply(self._safe, change)
        for path, stored in self._safe.items():
            if id(stored) in self._torn:
                content = stored.content[: rng.choice((0, len(stored.content) // 2, len(stored.content)))]
                self._safe[path] = Stored(content, f"torn {stored.fingerprint}", stored.modified_s)
        self.objects.files = elsewhere | {path: file for path, file in self._safe.items() if path.startswith(self.root)}
        self.settle()

    def _rename(self, source: str, target: str, step: int, file: Stored | None = None) -> None:
        file = file or self.objects.files[source]
        self.objects.put(target, file.content, step)
        self.objects.files[target] = file
        self.objects.remove(source, step)
        self._changes.append(Renaming(source, target, file))


def _apply(names: Names, change: Renaming) -> None:
    names.pop(change.source, None)
    if change.file is not None:
        names[change.target] = change.file


def _folder(change: Renaming) -> str:
    return (change.target or change.source).rpartition("/")[0]


@dataclass(frozen=True)
class SimulatedDisk:
    """`pipelines.storage.local_files.Disk` on a platter."""

    world: World
    platter: Platter

    def makedirs(self, folder: str) -> None:
        """Folders are there whenever they are needed."""

    def write(self, path: str, content: bytes) -> None:
        """Create a file."""
        self._do("write", path, lambda: self.platter.write(path, content, self.world.step))

    def sync(self, path: str) -> None:
        """fsync of a file."""
        self._do("sync", path, lambda: self.platter.sync(path))

    def sync_folder(self, folder: str) -> None:
        """fsync of a folder."""
        self._do("sync", folder, lambda: self.platter.sync_folder(folder))

    def replace(self, source: str, target: str) -> None:
        """Rename."""
        self._do("rename", target, lambda: self.platter.rename(source, target, self.world.step))

    def link(self, source: str, target: str) -> None:
        """A hard link."""
        self._do("link", target, lambda: self.platter.link(source, target, self.world.step))

    def remove(self, path: str) -> None:
        """Unlink."""
        self._do("del", path, lambda: self.platter.remove(path, self.world.step))

    def _do(self, what: str, path: str, apply: Callable[[], None]) -> None:
        self.world.write(what, _TEMPORARY.sub(".tmp", path), apply)


@dataclass(frozen=True, kw_only=True)
class DiskStore(SimulatedStore):
    """A store of local files: what is being written has a temporary name, which no listing shows."""

    disk: local_files.Disk

    def iter_files(self, root: str) -> Iterator[FileInfo]:
        """As `pipelines.storage.local_files` lists."""
        return (file for file in super().iter_files(root) if not is_temporary(file.uri))

    def publish(self, uri: str, content: bytes) -> None:
        """The real sequence of operations."""
        local_files.publish_file(uri, content, self.disk)

    def create_once(self, uri: str, content: bytes) -> None:
        """The real sequence of operations."""
        local_files.create_file(uri, content, self.disk)

    def remove(self, uri: str) -> None:
        """One unlink; nobody waits for it to be safe."""
        self.disk.remove(uri)

    def settle(self, folders: Sequence[str]) -> None:
        """As the real store."""
        for folder in folders:
            self.disk.sync_folder(folder)
