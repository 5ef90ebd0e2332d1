"""Local files: the sequence that makes them durable, files of killed writers, listings with links."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.storage import local_files
from pipelines.storage.file_info import is_temporary, temporary_name


class RecordedDisk(local_files.OsDisk):
    """The real disk, with a record of its operations in which temporary names are `*`."""

    def __init__(self, fails_at: str = "") -> None:
        self.done: list[tuple[str, ...]] = []
        self.fails_at = fails_at

    def note(self, operation: str, *paths: str) -> None:
        names = [os.path.basename(path) for path in paths]
        self.done.append((operation, *("*" if is_temporary(name) else name for name in names)))
        if operation == self.fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, path: str, content: bytes) -> None:
        self.note("write", path)
        super().write(path, content)

    def sync(self, path: str) -> None:
        self.note("sync", path)
        super().sync(path)

    def sync_folder(self, folder: str) -> None:
        self.note("sync_folder", folder)
        super().sync_folder(folder)

    def replace(self, source: str, target: str) -> None:
        self.note("replace", source, target)
        super().replace(source, target)

    def link(self, source: str, target: str) -> None:
        self.note("link", source, target)
        super().link(source, target)

    def remove(self, path: str) -> None:
        self.note("remove", path)
        super().remove(path)


def test_a_file_appears_after_its_content_is_safe_and_is_safe_itself_then(tmp_path: Path) -> None:
    disk = RecordedDisk()
    local_files.publish_file(str(tmp_path / "new" / "data" / "a"), b"content", disk)
    assert disk.done == [
        ("sync_folder", tmp_path.name),  # holds the name of the new folder
        ("sync_folder", "new"),
        ("write", "*"),
        ("sync", "*"),
        ("replace", "*", "a"),
        ("sync_folder", "data"),
    ]
    assert (tmp_path / "new" / "data" / "a").read_bytes() == b"content"


def test_a_file_is_created_by_a_link_to_safe_content(tmp_path: Path) -> None:
    disk = RecordedDisk()
    for content in (b"first", b"second"):
        local_files.create_file(str(tmp_path / "a"), content, disk)
    once = [("write", "*"), ("sync", "*"), ("link", "*", "a"), ("remove", "*"), ("sync_folder", tmp_path.name)]
    assert disk.done == once * 2
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


@pytest.mark.parametrize("operation", ["write", "sync", "replace", "link"])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, operation: str) -> None:
    write = local_files.create_file if operation == "link" else local_files.publish_file
    with pytest.raises(OSError, match="No space left"):
        write(str(tmp_path / "a"), b"content", RecordedDisk(fails_at=operation))
    assert list(tmp_path.iterdir()) == []


def test_of_many_creators_one_creates(tmp_path: Path) -> None:
    contents = [str(number).encode() * 1000 for number in range(8)]
    barrier = threading.Barrier(len(contents))

    def create(content: bytes) -> None:
        barrier.wait()
        local_files.create_file(str(tmp_path / "a"), content)

    threads = [threading.Thread(target=create, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() in contents


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    assert local_files.can_link(str(tmp_path / "new"))
    monkeypatch.setattr(os, "link", refuse)
    assert not local_files.can_link(str(tmp_path / "new"))
    for content in (b"first", b"second"):
        local_files.create_file(str(tmp_path / "new" / "a"), content)
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"first"]


def test_folders_that_cannot_be_synced_are_no_error_but_broken_disks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [errno.EINVAL, errno.EIO]

    def refuse(file: int) -> None:
        raise OSError(numbers.pop(0), "refused")

    monkeypatch.setattr(os, "fsync", refuse)
    local_files.OS_DISK.sync_folder(str(tmp_path))
    with pytest.raises(OSError, match="refused"):
        local_files.OS_DISK.sync_folder(str(tmp_path))


def killed_writer(path: Path, function: str) -> None:
    """Run a process that is killed after it has written the content, but before the file appears."""
    code = f"""
import os, signal
from pipelines.storage import local_files
class Deadly(local_files.OsDisk):
    def sync(self, path):
        os.kill(os.getpid(), signal.SIGKILL)
local_files.{function}({str(path)!r}, b"half", Deadly())
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL


def test_what_killed_writers_leave_is_hidden_and_goes_when_it_is_old(tmp_path: Path) -> None:
    for folder, function in (("data", "publish_file"), ("_chunks", "create_file")):
        killed_writer(tmp_path / folder / "a.parquet", function)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == 2 and all(is_temporary(str(path)) for path in left)
    (tmp_path / "data" / "foo.tmp").write_bytes(b"a user's own")
    outside = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    outside.mkdir()
    (outside / temporary_name("a")).touch()
    (tmp_path / "link").symlink_to(outside)
    assert storage.list_uris(str(tmp_path)) == [f"{tmp_path}/data/foo.tmp"]
    assert storage.remove_stale_temporaries(str(tmp_path), 3600) == 0
    hours_ago = time.time() - 7200
    for path in (left[0], tmp_path / "data" / "foo.tmp", *outside.iterdir()):
        os.utime(path, (hours_ago, hours_ago))
    assert storage.remove_stale_temporaries(str(tmp_path), 3600) == 1
    assert [path.exists() for path in left] == [False, True]
    assert (tmp_path / "data" / "foo.tmp").exists() and len(list(outside.iterdir())) == 1
    assert storage.remove_stale_temporaries("memory://nothing", 0) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".a.parquet.0a1b2c3d.tmp", True),
        ("chunk-size.json.0a1b2c3d.tmp", True),
        ("a.parquet.0123456789abcdef0123456789abcdef.tmp", True),
        ("foo.tmp", False),
        (".foo.tmp", False),
        ("notes.20240101.tmp", False),
        ("a.tar", False),
        ("a.0a1b2c3d.tmp.tar", False),
    ],
)
def test_temporary_names_are_told_from_those_of_users(name: str, expected: bool) -> None:
    assert is_temporary(f"/folder/{name}") is expected
    assert is_temporary(f"/folder/{temporary_name(name)}")


def test_globs_see_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.tar").write_bytes(b"12345")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").symlink_to("../real/a.tar")
    (tmp_path / "in" / "gone.tar").symlink_to("nowhere")
    (tmp_path / "in" / "sub").symlink_to("../real")
    real = storage.stat(f"{tmp_path}/real/a.tar")
    assert real is not None
    for pattern, found in [("in/*.tar", "in/a.tar"), ("in/**/*.tar", "in/a.tar"), ("in/*/a.tar", "in/sub/a.tar")]:
        ((uri, file),) = storage.glob_files(f"{tmp_path}/{pattern}")
        assert uri == f"{tmp_path}/{found}"
        assert file is not None and (file.fingerprint, file.size_bytes) == (real.fingerprint, 5)


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (str(tmp_path / "pipe.jpg"), "/dev/zero"):
        with pytest.raises(OSError, match="not a file") as caught:
            storage.read_bytes(path, 10)
        assert caught.value.errno == errno.EINVAL
