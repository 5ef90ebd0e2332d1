"""A local disk that may lose power, used by the real functions of `pipelines.storage.local_files`.

Each primitive operation is a separate point. Names are durable once their folder is synced, and contents once their
file is. After a power loss any subset of the other name changes has happened, and contents that were not synced are
torn.
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
    """A name change that is not durable yet; one of the two names is empty for a creation or a removal."""

    source: str
    target: str
    file: Stored | None


class Platter:
    """Tracks what survives a power loss; what the processes see is in `Objects`."""

    def __init__(self, objects: Objects, root: str) -> None:
        """Track the files below `root`; files elsewhere are always durable."""
        self.objects = objects
        self.root = root
        self._safe: Names = dict(objects.files)
        self._changes: list[Renaming] = []
        self._torn: set[int] = set()
        """Ids of the `Stored` objects whose content is not synced."""
        self._kept: list[Stored] = []
        """Keeps these objects alive, so that no id is reused."""

    def settle(self) -> None:
        """Make the present state durable."""
        self._safe, self._changes = dict(self.objects.files), []
        self._torn.clear()

    def write(self, path: str, content: bytes, step: int) -> None:
        """Create a file of which nothing is durable."""
        self.objects.put(path, content, step)
        stored = self.objects.files[path]
        self._torn.add(id(stored))
        self._kept.append(stored)
        self._changes.append(Renaming("", path, stored))

    def sync(self, path: str) -> None:
        """Make the content of a file durable."""
        if path in self.objects.files:
            self._torn.discard(id(self.objects.files[path]))

    def sync_folder(self, folder: str) -> None:
        """Make the names in a folder durable."""
        here = [change for change in self._changes if _folder(change) == folder]
        self._changes = [change for change in self._changes if _folder(change) != folder]
        for change in here:
            _apply(self._safe, change)

    def rename(self, source: str, target: str, step: int) -> None:
        """Rename a file atomically."""
        if source not in self.objects.files:
            raise FileNotFoundError(source)
        self._rename(source, target, step)

    def link(self, source: str, target: str, step: int) -> None:
        """Give a file a second name."""
        if target in self.objects.files:
            raise FileExistsError(target)
        self._rename("", target, step, self.objects.files[source])

    def remove(self, path: str, step: int) -> None:
        """Delete a name."""
        if path in self.objects.files:
            self.objects.remove(path, step)
            self._changes.append(Renaming(path, "", None))

    def lose_power(self, number: int) -> None:
        """Lose power: a subset of the changes that are not durable, chosen by `number`, has happened."""
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
    """`pipelines.storage.local_files.Disk` on a `Platter`."""

    world: World
    platter: Platter

    def makedirs(self, folder: str) -> None:
        """Do nothing: folders always exist."""

    def write(self, path: str, content: bytes) -> None:
        """Create a file."""
        self._do("write", path, lambda: self.platter.write(path, content, self.world.step))

    def sync(self, path: str) -> None:
        """Sync a file."""
        self._do("sync", path, lambda: self.platter.sync(path))

    def sync_folder(self, folder: str) -> None:
        """Sync a folder."""
        self._do("sync", folder, lambda: self.platter.sync_folder(folder))

    def replace(self, source: str, target: str) -> None:
        """Rename a file."""
        self._do("rename", target, lambda: self.platter.rename(source, target, self.world.step))

    def link(self, source: str, target: str) -> None:
        """Create a hard link."""
        self._do("link", target, lambda: self.platter.link(source, target, self.world.step))

    def remove(self, path: str) -> None:
        """Unlink a file."""
        self._do("del", path, lambda: self.platter.remove(path, self.world.step))

    def _do(self, what: str, path: str, apply: Callable[[], None]) -> None:
        self.world.write(what, _TEMPORARY.sub(".tmp", path), apply)


@dataclass(frozen=True, kw_only=True)
class DiskStore(SimulatedStore):
    """A store of local files; files that are being written have temporary names, which no listing shows."""

    disk: local_files.Disk

    def iter_files(self, root: str) -> Iterator[FileInfo]:
        """List files as `pipelines.storage.local_files` does."""
        return (file for file in super().iter_files(root) if not is_temporary(file.uri))

    def publish(self, uri: str, content: bytes) -> None:
        """Publish with the real sequence of operations."""
        local_files.publish_file(uri, content, self.disk)

    def create_once(self, uri: str, content: bytes) -> None:
        """Create with the real sequence of operations."""
        local_files.create_file(uri, content, self.disk)

    def remove(self, uri: str) -> None:
        """Unlink a file without waiting until that is durable."""
        self.disk.remove(uri)

    def settle(self, folders: Sequence[str]) -> None:
        """Sync the folders, as the real store does."""
        for folder in folders:
            self.disk.sync_folder(folder)
