"""Hashes of files are cached and never stale. Quick hashes tell weights apart."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from unicon.files import hashes
from unicon.files.hashes import file_sha256, fingerprint, quick_fingerprint

CONTENT = os.urandom(1 << 20)


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read whole; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found: list[str] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashes.hashlib, "file_digest", lambda file, name: found.append(file.name) or digest(file, name))
    return found


def old(path: Path, content: bytes = CONTENT, time_s: float = 1_000.5) -> Path:
    """A file that was not written just now."""
    path.write_bytes(content)
    os.utime(path, (time_s, time_s))
    return path


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if hours had passed since the files were written."""
    now = hashes.time.time_ns()
    monkeypatch.setattr(hashes.time, "time_ns", lambda: now + 3_600_000_000_000)


def test_a_file_is_read_once(reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "a.safetensors")
    settled(monkeypatch)
    assert file_sha256(path) == file_sha256(path) == hashlib.sha256(CONTENT).hexdigest()
    assert len(reads) == 1
    (tmp_path / "link").symlink_to(path)
    assert file_sha256(tmp_path / "link") == file_sha256(path)
    assert len(reads) == 1


def test_a_changed_file_is_read_again(reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "a.safetensors")
    settled(monkeypatch)
    before = file_sha256(path)
    old(path, CONTENT[::-1])  # of the same size, and with its old time back
    assert file_sha256(path) == hashlib.sha256(CONTENT[::-1]).hexdigest() != before
    assert len(reads) == 2


def test_a_file_that_was_written_just_now_is_not_kept(reads: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(CONTENT)
    os.utime(path, ns=(hashes.time.time_ns(), hashes.time.time_ns()))
    file_sha256(path)
    file_sha256(path)
    assert len(reads) == 2


def test_without_a_cache_hashes_are_computed(reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "a.safetensors")
    settled(monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made in it
    assert file_sha256(path) == file_sha256(path) == hashlib.sha256(CONTENT).hexdigest()
    assert len(reads) == 2


def test_a_damaged_entry_is_not_believed(reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "a.safetensors")
    settled(monkeypatch)
    right = file_sha256(path)
    (entry,) = (tmp_path / "cache" / "unicon-data" / "hashes").iterdir()
    for damage in ("", right[:20], "x" * 64):
        entry.write_text(damage)
        assert file_sha256(path) == right


def test_at_the_same_time(reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "a.safetensors")
    settled(monkeypatch)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(file_sha256(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {hashlib.sha256(CONTENT).hexdigest()} and len(found) == 8
    assert len(list((tmp_path / "cache" / "unicon-data" / "hashes").iterdir())) == 1


def test_fingerprints(reads: list[str], tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    path, copy = old(tmp_path / "a", content), old(tmp_path / "b", content)
    assert fingerprint([("x", path)]) == fingerprint([("x", copy)]) != fingerprint([("y", path)])
    assert quick_fingerprint([("x", path)]) == quick_fingerprint([("x", copy)]) != quick_fingerprint([("y", path)])
    assert quick_fingerprint([("x", old(copy, content[::-1]))]) != quick_fingerprint([("x", path)])
    assert quick_fingerprint([("x", old(copy, content + b"1"))]) != quick_fingerprint([("x", path)])
