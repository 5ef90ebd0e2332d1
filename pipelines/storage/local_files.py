"""Files on local disks: listing them, and writing them so that they are whole and survive a power failure.

Writing is a sequence of a few primitive operations of a disk, which is an argument. The simulation runs the same
sequence on a model of a disk that corrupts what was not synced.
"""

import errno
import glob
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol, cast

from fsspec.implementations.local import LocalFileSystem

from pipelines.storage.file_info import FileInfo, is_temporary, short_hash, temporary_name

NO_FOLDER_SYNC = frozenset(
    (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
)
"""The errors of file systems that cannot sync a folder."""


class Disk(Protocol):
    """The operations that make a file appear; each may fail with OSError."""

    def makedirs(self, folder: str) -> None:
        """Create a folder and its missing parents, so that they survive a power failure."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Create or replace a file, which survives a power failure only after `sync`."""
        ...

    def sync(self, path: str) -> None:
        """Return when a file's content is durable."""
        ...

    def sync_folder(self, folder: str) -> None:
        """Return when the names in a folder are durable."""
        ...

    def replace(self, source: str, target: str) -> None:
        """Rename a file atomically, replacing an existing one."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file a second name. Raises FileExistsError if that name exists."""
        ...

    def remove(self, path: str) -> None:
        """Delete a file. It is not an error if the file does not exist."""
        ...


class OsDisk:
    """The disks of this machine."""

    def makedirs(self, folder: str) -> None:
        if not folder or os.path.isdir(folder):
            return
        above = os.path.dirname(folder)
        self.makedirs(above)
        with suppress(FileExistsError):
            os.mkdir(folder)
        self.sync_folder(above)

    def write(self, path: str, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content)

    def sync(self, path: str) -> None:
        with open(path, "r+b") as file:
            os.fsync(file.fileno())

    def sync_folder(self, folder: str) -> None:
        try:
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
        except OSError as error:
            if error.errno not in NO_FOLDER_SYNC:
                raise

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """Create a hard link. Without hard links, two calls at once may both succeed; see `can_link`."""
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            if os.path.exists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
            os.replace(source, target)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.remove(path)


OS_DISK = OsDisk()


def publish_file(path: str, content: bytes, disk: Disk = OS_DISK) -> None:
    """Write a file atomically, replacing an existing one. It is durable when this returns."""
    folder, name = os.path.split(path)
    partial = os.path.join(folder, temporary_name(name))
    disk.makedirs(folder)
    try:
        disk.write(partial, content)
        disk.sync(partial)
        disk.replace(partial, path)
    except BaseException:
        disk.remove(partial)
        raise
    disk.sync_folder(folder)


def create_file(path: str, content: bytes, disk: Disk = OS_DISK) -> None:
    """Write a file as `publish_file` does, but keep an existing one. Of several callers at once, one creates it."""
    folder, name = os.path.split(path)
    partial = os.path.join(folder, temporary_name(name))
    disk.makedirs(folder)
    try:
        disk.write(partial, content)
        disk.sync(partial)
        with suppress(FileExistsError):
            disk.link(partial, path)
    finally:
        disk.remove(partial)
    disk.sync_folder(folder)


def read_file(path: str, limit_bytes: int | None) -> bytes:
    """Read a file, or its first `limit_bytes + 1` bytes. Refuses pipes and devices without waiting for them."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "This is a pipe or a device, not a file", path)
        return file.read() if limit_bytes is None else file.read(limit_bytes + 1)


def can_link(folder: str) -> bool:
    """Return whether the file system of a folder has hard links. Creates the folder."""
    OS_DISK.makedirs(folder)
    first, second = (os.path.join(folder, temporary_name("links")) for _ in range(2))
    try:
        OS_DISK.write(first, b"")
        os.link(first, second)
    except OSError:
        return False
    finally:
        OS_DISK.remove(first)
        OS_DISK.remove(second)
    return True


def remove_stale_files(root: str, older_than_s: float) -> int:
    """Delete temporary files of killed writers below `root` that are this old; return how many. Follows no links."""
    count = 0
    before_s = time.time() - older_than_s
    for folder, _, names in os.walk(root):
        for path in (os.path.join(folder, name) for name in names if is_temporary(name)):
            with suppress(FileNotFoundError):
                if os.lstat(path).st_mtime < before_s:
                    os.remove(path)
                    count += 1
    return count


def iter_files(root: str) -> Iterator[FileInfo]:
    """Yield the file `root`, or the files below the folder `root`."""
    if os.path.isfile(root):
        if not is_temporary(root):
            yield file_info(root, os.stat(root))
        return
    for entry in iter_entries(root):
        with suppress(FileNotFoundError):  # deleted since it was listed
            yield file_info(entry.path, entry.stat())


def iter_entries(root: str) -> Iterator["os.DirEntry[str]"]:
    """Yield the files below a folder, depth first and sorted within a folder. Follows links, but each folder once."""
    for entries in _folders(root):
        yield from (entry for entry in entries if not is_temporary(entry.name) and _leads_to(entry, entry.is_file))


def _folders(root: str) -> Iterator[list["os.DirEntry[str]"]]:
    """Yield the entries of each folder, before those of the folders within it."""
    seen: set[tuple[int, int]] = set()
    pending = [root] if os.path.isdir(root) else []
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):  # deleted since it was listed
            continue
        yield entries
        pending += [entry.path for entry in reversed(entries) if _leads_to(entry, entry.is_dir)]


def _leads_to(entry: "os.DirEntry[str]", is_kind: Callable[[], bool]) -> bool:
    """Return `is_kind()` of an entry, or False for a link that leads to itself."""
    try:
        return is_kind()
    except OSError as error:
        if error.errno != errno.ELOOP or not entry.is_symlink():
            raise
        return False


def glob_files(pattern: str) -> list[tuple[str, FileInfo | None]]:
    """Return (path, file or None for a folder) of what matches, sorted. `**` does not follow links, to avoid loops."""
    if "**" in pattern:
        names = cast(list[str], LocalFileSystem().glob(pattern))
    else:
        names = glob.glob(pattern, include_hidden=True)
    found: list[tuple[str, FileInfo | None]] = []
    for path in sorted(name for name in names if not is_temporary(name)):
        if os.path.isdir(path):
            found.append((path, None))
        elif os.path.exists(path):
            with suppress(FileNotFoundError):  # deleted since it was listed
                found.append((path, file_info(path, os.stat(path))))
    return found


def why_not_writable(path: str, is_folder: bool = False) -> str:
    """Return why a file or folder cannot be created at a path; empty if nothing prevents it."""
    there = path
    while not os.path.exists(there):
        if os.path.islink(there):
            return f"{there} is a broken link"
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        if is_folder or there != path:
            return f"{there} is a file, not a folder"
        there = os.path.dirname(there)
    return "" if os.access(there, os.W_OK | os.X_OK) else f"there is no permission to write to {there}"


def dead_links(place: str, is_pattern: bool = False) -> list[str]:
    """Return the broken links below a folder, or among the paths that match a pattern."""
    if is_pattern:
        paths = glob.glob(place, include_hidden=True, recursive="**" in place)
    else:
        paths = [entry.path for entries in _folders(place) for entry in entries if entry.is_symlink()]
    return sorted(path for path in paths if not os.path.exists(path))


def stat_file(path: str) -> FileInfo | None:
    """Return the file at a path, or None if nothing or a folder is there."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISDIR(status.st_mode) else file_info(path, status)


def file_info(path: str, status: os.stat_result) -> FileInfo:
    """Return the metadata of a file as a listing shows it."""
    fingerprint = short_hash(str(status.st_size), str(status.st_mtime))
    return FileInfo(uri=path, size_bytes=status.st_size, fingerprint=fingerprint, modified_s=status.st_mtime)
