"""Storage: atomic publication, listing, fingerprints."""

import os
import time
from pathlib import Path

import pytest

from pipelines import storage


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_publish_list_read_remove(scheme: str, tmp_path: Path) -> None:
    root = str(tmp_path) if scheme == "file" else f"memory://publish-{tmp_path.name}"
    uri = storage.join(root, "data", "a.parquet")
    storage.publish(uri, b"one")
    storage.publish(uri, b"three")
    assert storage.read_bytes(uri) == b"three"
    assert [(info.uri, info.size_bytes) for info in storage.list_files(root)] == [(uri, 5)]
    storage.remove(uri)
    storage.remove(uri)
    assert storage.list_files(root) == []


def test_a_failed_publication_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        storage.publish(str(tmp_path / "a"), b"content")
    assert list(tmp_path.iterdir()) == []


def test_fingerprint_follows_content(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(b"one")
    before = storage.list_files(str(file))[0].fingerprint
    assert storage.list_files(str(file))[0].fingerprint == before
    os.utime(file, (time.time() + 5, time.time() + 5))
    assert storage.list_files(str(file))[0].fingerprint != before


def test_normalise_gives_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalise("x/") == storage.normalise(f"file://{tmp_path}/x") == str(tmp_path / "x")
    assert storage.normalise("s3://bucket/x/") == "s3://bucket/x"
