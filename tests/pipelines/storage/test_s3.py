# fsspec does not declare the attributes of its S3 driver.
# pyright: reportAttributeAccessIssue=false
"""Storage on a real S3 server: publication, listing, retries, and messages when a request is refused."""

import time
from collections.abc import Callable
from functools import partial

import pytest
from s3fs import S3FileSystem

from pipelines import storage
from pipelines.errors import SampleError, ShardChangedError
from pipelines.readers.references import fetch
from pipelines.storage.errors import StorageError
from pipelines.storage.store import FILES, honors_create_once
from tests.support.object_store import READER_KEY, READER_SECRET, SECRET, Fault, Proxy, object_store
from tests.support.s3_user import CLOSED, OPEN, Become, become, proxy, s3

__all__ = ["become", "object_store", "proxy", "s3"]


def test_publish_list_read_remove(s3: Proxy) -> None:
    uri = f"{OPEN}/publish/data/a.parquet"
    storage.publish(uri, b"one")
    storage.publish(uri, b"three")
    assert storage.read_bytes(uri) == storage.read_bytes(uri, limit_bytes=5) == b"three"
    with pytest.raises(storage.TooLargeError):
        storage.read_bytes(uri, limit_bytes=4)
    (found,) = storage.list_files(f"{OPEN}/publish")
    assert (found.uri, found.size_bytes) == (uri, 5)
    assert storage.list_files(uri) == [found] == [storage.stat(uri)]
    assert storage.glob_files(f"{OPEN}/publish/*/*.parquet") == [(uri, found)]
    assert storage.glob_files(f"{OPEN}/publish/d*") == [(f"{OPEN}/publish/data", None)]
    assert storage.exists(f"{OPEN}/publish/data")
    with storage.open_read(uri) as file:
        assert (file.seek(2), file.read(2), file.read()) == (2, b"re", b"e")
    storage.remove(uri)
    storage.remove(uri)
    assert storage.list_files(f"{OPEN}/publish") == []
    assert storage.stat(uri) is None
    assert not storage.exists(uri)


def test_of_two_creators_the_first_stays(s3: Proxy) -> None:
    uri = f"{OPEN}/once/a"
    s3.requests.clear()
    for content in (b"first", b"second"):
        storage.create_once(uri, content)
    assert storage.read_bytes(uri) == b"first"
    assert honors_create_once(FILES, f"{OPEN}/once/probe")
    assert storage.list_uris(f"{OPEN}/once") == [uri]


def test_a_failed_creation_is_reported_unless_the_object_exists(s3: Proxy) -> None:
    s3.faults = [Fault("403", 1, "PUT /open-bucket/once/b")]
    with pytest.raises(StorageError, match="^cannot write s3://open-bucket/once/b: access was refused"):
        storage.create_once(f"{OPEN}/once/b", b"first")
    storage.create_once(f"{OPEN}/once/b", b"first")
    s3.faults = [Fault("403", 1, "PUT /open-bucket/once/b")]
    storage.create_once(f"{OPEN}/once/b", b"second")
    assert storage.read_bytes(f"{OPEN}/once/b") == b"first"


def test_a_pinned_store_opens_and_reads_the_planned_version_only(s3: Proxy) -> None:
    uri = f"{OPEN}/pinned/a"
    storage.publish(uri, b"first")
    info = storage.stat(uri)
    assert info is not None
    store = FILES.pinned({uri: info.fingerprint})
    s3.faults = [Fault("cut", 2, "GET")]
    assert store.read_bytes(uri) == store.read_bytes(uri, 5) == b"first"
    s3.requests.clear()
    with pytest.raises(storage.TooLargeError):
        store.read_bytes(uri, 4)
    assert len(s3.requests) == 1
    with store.open_read(uri) as file:
        assert file.read() == b"first"
    storage.publish(uri, b"second")
    for read in (store.open_read, store.read_bytes, lambda place: fetch(place, store)):
        with pytest.raises(ShardChangedError, match="/a has changed while it was read"):
            read(uri)


def test_an_object_is_looked_up_in_one_request(s3: Proxy) -> None:
    storage.publish(f"{OPEN}/stat/folder/a", b"x")
    for name, is_there in [("folder/a", True), ("folder", False), ("absent", False)]:
        s3.requests.clear()
        assert (storage.stat(f"{OPEN}/stat/{name}") is not None) == is_there
        assert len(s3.requests) == 1
    assert storage.stat(OPEN) is None


@pytest.mark.parametrize("name", ["s3://Not A Bucket/a.jpg", "s3://open-bucket/" + "x" * 2000, "s3://"])
def test_an_invalid_address_is_a_sample_error(s3: Proxy, name: str) -> None:
    with pytest.raises(SampleError, match="^read: cannot read"):
        fetch(name)


def test_an_empty_object_and_an_empty_folder(s3: Proxy) -> None:
    storage.publish(f"{OPEN}/empty/a", b"")
    storage.filesystem(OPEN)[0].touch("open-bucket/empty/folder/")
    assert storage.read_bytes(f"{OPEN}/empty/a", limit_bytes=10) == b""
    assert [info.uri for info in storage.list_files(f"{OPEN}/empty")] == [f"{OPEN}/empty/a"]


def test_publication_is_one_request(s3: Proxy) -> None:
    s3.requests.clear()
    storage.publish(f"{OPEN}/one/a", b"x" * 1_000_000)
    assert [request.split("?")[0] for request in s3.requests] == ["PUT /open-bucket/one/a"]


def test_large_objects_appear_as_a_whole(s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3fs splits objects larger than 100 MB into parts; in this test, those larger than 5 MiB."""
    storage.publish(f"{OPEN}/large/a", b"before")
    fs, _ = storage.filesystem(OPEN)
    monkeypatch.setattr(fs, "pipe_file", partial(fs.pipe_file, chunksize=5 << 20))
    s3.faults = [Fault("403", 100, "partNumber=2")]
    content = bytes(12 << 20) + b"end"
    with pytest.raises(StorageError):
        storage.publish(f"{OPEN}/large/a", content)
    assert storage.read_bytes(f"{OPEN}/large/a") == b"before"
    assert not fs.call_s3("list_multipart_uploads", Bucket="open-bucket").get("Uploads")
    s3.faults = []
    s3.requests.clear()
    storage.publish(f"{OPEN}/large/a", content)
    assert sum("partNumber=" in request for request in s3.requests) == 3
    with storage.open_read(f"{OPEN}/large/a") as file:
        assert (file.seek(-5, 2), file.read()) == (len(content) - 5, b"\0\0end")


def test_listing_costs_one_request_a_page(s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [f"{OPEN}/pages/{number:02d}" for number in range(25)]
    for uri in uris:
        storage.publish(uri, b"x")
    fs, _ = storage.filesystem(OPEN)
    monkeypatch.setattr(fs, "req_kw", {"MaxKeys": 10})
    s3.requests.clear()
    files = storage.iter_files(f"{OPEN}/pages")
    assert next(files).uri == uris[0]
    assert len(s3.requests) == 1
    assert [info.uri for info in files] == uris[1:]
    assert len(s3.requests) == 3


@pytest.mark.parametrize("kind", ["500", "503", "drop", "cut"])
def test_passing_failures_are_tried_again(s3: Proxy, kind: str) -> None:
    uri = f"{OPEN}/retries/{kind}"
    if kind != "cut":
        s3.faults = [Fault(kind, 2)]
    storage.publish(uri, b"content")
    s3.faults = [Fault(kind, 1, "GET")]
    assert [info.uri for info in storage.iter_files(uri)] == [uri]
    s3.faults = [Fault(kind, 2, "GET")]
    s3.requests.clear()
    assert storage.read_bytes(uri) == b"content"
    assert len(s3.requests) == 3
    s3.faults = [Fault(kind, 1, "GET")]
    with storage.open_read(uri) as file:
        assert file.read() == b"content"


def test_slow_answers_are_waited_for(s3: Proxy) -> None:
    storage.publish(f"{OPEN}/slow/a", b"content")
    s3.faults = [Fault("slow", 1, "GET", seconds=0.5)]
    assert storage.read_bytes(f"{OPEN}/slow/a") == b"content"


def test_stalled_requests_are_made_again(s3: Proxy, become: Become, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.publish(f"{OPEN}/slow/b", b"content")
    monkeypatch.setattr(S3FileSystem, "read_timeout", 0.5)
    become()
    s3.faults = [Fault("slow", 1, "GET", seconds=2.0)]
    s3.requests.clear()
    assert storage.read_bytes(f"{OPEN}/slow/b") == b"content"
    assert len(s3.requests) == 2


def test_attempts_are_bounded(s3: Proxy, become: Become, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    become(AWS_MAX_ATTEMPTS="2", AWS_RETRY_MODE="standard")
    s3.faults = [Fault("500", 1000)]
    with pytest.raises(StorageError, match="after several attempts") as caught:
        storage.publish(f"{OPEN}/bounded/a", b"x")
    assert (caught.value.kind, len(s3.requests)) == ("unreachable", 2)


def test_the_number_of_attempts_reaches_the_driver(s3: Proxy) -> None:
    fs, _ = storage.filesystem(OPEN)
    assert fs.s3.meta.config.retries == {"mode": "standard", "total_max_attempts": storage.ATTEMPTS}


def refusals(root: str, requests: list[str], secret: str) -> list[StorageError]:
    """Return the errors of every operation. Each is refused at once, without a retry or a secret in the message."""
    operations: list[tuple[str, Callable[[], object]]] = [
        ("list", lambda: storage.list_files(f"{root}/x")),
        ("read", lambda: storage.read_bytes(f"{root}/x")),
        ("read", lambda: storage.open_read(f"{root}/x")),
        ("read", lambda: storage.exists(f"{root}/x")),
        ("write", lambda: storage.publish(f"{root}/x", b"")),
    ]
    errors = []
    for action, operate in operations:
        requests.clear()
        with pytest.raises(StorageError, match=f"^cannot {action} s3://") as caught:
            operate()
        assert secret not in str(caught.value)
        assert len(requests) <= 2
        errors.append(caught.value)
    return errors


def test_a_missing_bucket_is_named(s3: Proxy) -> None:
    errors = refusals("s3://absent-bucket", s3.requests, SECRET)
    assert all((error.kind, "no bucket 'absent-bucket'" in str(error)) == ("bucket", True) for error in errors)


def test_forbidden_places_are_named(s3: Proxy, become: Become) -> None:
    storage.publish(f"{OPEN}/reader/a", b"x")
    become(AWS_ACCESS_KEY_ID=READER_KEY, AWS_SECRET_ACCESS_KEY=READER_SECRET)
    errors = refusals(CLOSED, s3.requests, READER_SECRET)
    assert all((error.kind, "access was refused" in str(error)) == ("denied", True) for error in errors)
    assert storage.read_bytes(storage.list_files(f"{OPEN}/reader")[0].uri) == b"x"
    with pytest.raises(StorageError, match="access was refused"):
        storage.publish(f"{OPEN}/reader/a", b"y")


def test_wrong_credentials_are_named(s3: Proxy, become: Become) -> None:
    become(AWS_SECRET_ACCESS_KEY="another-very-secret-key")
    errors = refusals(CLOSED, s3.requests, "another-very-secret-key")
    assert "SignatureDoesNotMatch" in str(errors[0])
    assert [error.kind for error in errors] == ["credentials"] * 2 + ["denied"] * 2 + [
        "credentials"
    ]  # an answer to HEAD has no error code


def test_missing_credentials_are_named(s3: Proxy, become: Become) -> None:
    become(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    errors = refusals(CLOSED, s3.requests, SECRET)
    assert all((error.kind, "no usable credentials" in str(error)) == ("credentials", True) for error in errors)


def test_a_missing_object_is_no_storage_failure(s3: Proxy) -> None:
    with pytest.raises(FileNotFoundError, match="s3://open-bucket/absent: there is nothing"):
        storage.read_bytes(f"{OPEN}/absent")


def test_an_object_replaced_while_it_is_read_is_an_error(s3: Proxy) -> None:
    uri = f"{OPEN}/replaced/a"
    storage.publish(uri, b"1" * 100)
    with storage.open_read(uri, block_size_bytes=10) as file:
        file.read(5)
        storage.publish(uri, b"2" * 100)
        with pytest.raises(StorageError):
            file.read()


def test_times_are_listed_and_fingerprints_stay(s3: Proxy) -> None:
    uri = f"{OPEN}/times/a"
    before = time.time()
    storage.publish(uri, b"one")
    (listed,) = storage.iter_files(f"{OPEN}/times")
    asked = storage.stat(uri)
    ((_, globbed),) = storage.glob_files(f"{OPEN}/times/*")
    for found in (listed, asked, globbed):
        assert found is not None and found.modified_s is not None
        assert before - 2 < found.modified_s < time.time() + 2
        assert found.fingerprint == storage.short_hash("3", '"f97c5d29941bfb1b2fdab0874906ab82"'), "size and ETag alone"
