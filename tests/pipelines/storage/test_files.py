"""Storage on disks and in memory: atomic publication, listing, fingerprints. See test_s3.py for S3."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.storage import remote_files
from pipelines.storage.errors import StorageError, explained, redacted


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_publish_list_read_remove(scheme: str, tmp_path: Path) -> None:
    root = str(tmp_path) if scheme == "file" else f"memory://publish-{tmp_path.name}"
    uri = storage.join(root, "data", "a.parquet")
    storage.publish(uri, b"one")
    storage.publish(uri, b"three")
    assert storage.read_bytes(uri) == storage.read_bytes(uri, limit_bytes=5) == b"three"
    with pytest.raises(storage.TooLargeError, match="more than 4 bytes"):
        storage.read_bytes(uri, limit_bytes=4)
    assert [(info.uri, info.size_bytes) for info in storage.list_files(root)] == [(uri, 5)]
    assert storage.list_files(uri) == storage.list_files(root) == [storage.stat(uri)]
    assert storage.list_uris(root) == storage.list_uris(uri) == [uri]
    with storage.open_read(uri) as file:
        assert (file.seek(2), file.read(2), file.read()) == (2, b"re", b"e")
    storage.remove(uri)
    storage.remove(uri)
    assert storage.list_files(root) == storage.list_uris(root) == []
    assert storage.stat(uri) is None
    assert not storage.exists(uri)


def test_a_failed_publication_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError("no space left")

    storage.publish(str(tmp_path / "a"), b"before")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        storage.publish(str(tmp_path / "a"), b"content")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_fingerprint_follows_content(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(b"one")
    before = storage.list_files(str(file))[0].fingerprint
    assert before == storage.short_hash("3", str(file.stat().st_mtime)), "outputs of earlier versions go on with it"
    ((_, globbed),) = storage.glob_files(f"{tmp_path}/*")
    found = storage.stat(str(file))
    assert found and globbed and globbed.modified_s == found.modified_s == file.stat().st_mtime
    assert storage.list_files(str(file))[0].fingerprint == before == found.fingerprint
    os.utime(file, (time.time() + 5, time.time() + 5))
    assert storage.list_files(str(file))[0].fingerprint != before


def test_normalize_gives_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalize("x/") == storage.normalize(f"file://{tmp_path}/x") == str(tmp_path / "x")
    assert storage.normalize("s3://bucket/x/") == "s3://bucket/x"


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_files_that_are_being_written_are_in_no_listing(scheme: str, tmp_path: Path) -> None:
    root = str(tmp_path) if scheme == "file" else f"memory://hidden-{tmp_path.name}"
    hidden = [".a.parquet.0123abcd.tmp", "b.json.0123abcd.tmp", "c.0123456789abcdef0123456789abcdef.tmp"]
    for name in ("a.parquet", "foo.tmp", *hidden):
        storage.publish(storage.join(root, "data", name), b"x")
    shown = [storage.join(root, "data", name) for name in ("a.parquet", "foo.tmp")]
    assert [info.uri for info in storage.list_files(root)] == storage.list_uris(root) == shown
    assert [info.uri for info in storage.iter_files(storage.join(root, "data", hidden[0]))] == []
    for pattern in ("data/*", "**/*.tmp", "data/*.parquet"):
        assert {uri for uri, _ in storage.glob_files(storage.join(root, pattern))} <= set(shown)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_what_is_created_once_stays(scheme: str, tmp_path: Path) -> None:
    uri = f"{tmp_path}/new/a" if scheme == "file" else f"memory://once-{tmp_path.name}/a"
    for content in (b"first", b"second"):
        storage.create_once(uri, content)
    assert storage.read_bytes(uri) == b"first"


class ListsUnquoted:
    """A driver that formats etags in two ways, as adlfs does."""

    def unstrip_protocol(self, path: str) -> str:
        return path


@pytest.mark.parametrize("scheme", ["abfs", "gs"])
def test_an_etag_is_one_version_with_quotes_or_without(scheme: str) -> None:
    driver: Any = ListsUnquoted()
    fingerprints = {
        remote_files.file_info(driver, f"{scheme}://b/a", {"size": 3, "etag": etag, "name": "b/a"}).fingerprint
        for etag in ("0x8D", '"0x8D"')
    }
    assert fingerprints == {storage.short_hash("3", "0x8D")}


@pytest.mark.parametrize(
    ("reference", "folder", "expected"),
    [
        ("a/b.jpg", "s3://bucket/lists", "s3://bucket/lists/a/b.jpg"),
        ("../b.jpg", "s3://bucket/lists", "s3://bucket/b.jpg"),
        ("./b.jpg", "/data/lists", "/data/lists/b.jpg"),
        ("/data/b.jpg", "/lists", "/data/b.jpg"),
        ("/b.jpg", "s3://bucket/lists", "s3://bucket/b.jpg"),
        ("gs://other/b.jpg", "s3://bucket/lists", "gs://other/b.jpg"),
    ],
)
def test_references_are_relative_to_their_folder(reference: str, folder: str, expected: str) -> None:
    assert storage.resolve(reference, folder) == expected


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"a")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    found = [info.uri.removeprefix(str(tmp_path)) for info in storage.iter_files(str(tmp_path))]
    assert found == ["/b.jpg", "/real/a.jpg"]


def test_names_that_are_no_text_are_listed(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.jpg", "wb"):
        pass
    assert [os.path.basename(os.fsencode(info.uri)) for info in storage.list_files(str(tmp_path))] == [b"\xff.jpg"]


def test_glob_tells_files_from_folders(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "b/y.jpg", "b/c/z.jpg", "d.jpg"):
        storage.publish(str(tmp_path / name), b"1")
    found = storage.glob_files(f"{tmp_path}/*")
    assert [(uri.rsplit("/", 1)[-1], file is not None) for uri, file in found] == [
        ("a", False),
        ("b", False),
        ("d.jpg", True),
    ]
    assert [file for _, file in storage.glob_files(f"{tmp_path}/**/z.jpg")] == storage.list_files(f"{tmp_path}/b/c")


def test_messages_hold_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    text = "swordfish http://me:pw@host/x?X-Amz-Signature=abc&sig=def&size=3"
    assert redacted(text) == "*** http://***@host/x?X-Amz-Signature=***&sig=***&size=3"
    with pytest.raises(StorageError) as caught, explained("http://me:pw@host/x", "read"):
        raise OSError("no luck with swordfish")
    assert str(caught.value) == (
        "cannot read http://***@host/x: the storage reports a failure (OSError: no luck with ***)"
    )


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StorageError("cannot read", "denied")))
    assert (type(error), str(error), error.kind) == (StorageError, "cannot read", "denied")


def test_errors_of_the_program_stay_what_they_are() -> None:
    with pytest.raises(KeyError), explained("s3://bucket/x", "read"):
        raise KeyError("bug")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ValueError, match="Protocol not known: nowhere"):
        storage.list_files("nowhere://x")
