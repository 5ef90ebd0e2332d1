"""Storage on a real S3 server: publication, listing, retries, and what is said when it is refused."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from pipelines import storage
from pipelines.dataset import layout
from pipelines.errors import PassingError, SampleError, SettingError, ShardChangedError
from pipelines.planning.plan import make_plan
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.references import fetch
from pipelines.readers.shards import find_shards
from pipelines.runs.record import RunRecord
from pipelines.runs.status import read_status
from pipelines.samples import Columns
from pipelines.storage.errors import StorageError
from pipelines.storage.store import FILES, honors_create_once
from pipelines.tasks.model import UniConModel, identify_model
from tests.support.inputs import picture, samples, write_folder, write_parquet, write_tar
from tests.support.object_store import (
    READER_KEY,
    READER_SECRET,
    SECRET,
    Fault,
    ObjectStore,
    Proxy,
    object_store,
    running_proxy,
)
from tests.support.tiny import write_tiny_model
from tests.support.versions import finish

__all__ = ["object_store"]
OPEN, CLOSED = "s3://open-bucket", "s3://closed-bucket"


@pytest.fixture(scope="module")
def proxy(object_store: ObjectStore) -> Iterator[Proxy]:
    """Clients that other tests of this process have made keep those tests' endpoint and credentials: forget them."""
    S3FileSystem.clear_instance_cache()
    with running_proxy(object_store) as running:
        yield running
    S3FileSystem.clear_instance_cache()


Become = Callable[..., None]


@pytest.fixture
def s3(object_store: ObjectStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The environment of a user of the server, through the proxy; both buckets exist."""
    for name, value in {**object_store.environment(), "AWS_ENDPOINT_URL": proxy.endpoint}.items():
        monkeypatch.setenv(name, value)
    proxy.faults = []
    fs, _ = storage.filesystem(OPEN)
    for bucket in (OPEN, CLOSED):
        if not fs.exists(bucket):
            fs.mkdir(bucket)
    proxy.requests.clear()
    return proxy


@pytest.fixture
def become(s3: Proxy, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Become]:
    """Change the environment from the call on. Clients made before are forgotten; making one takes a while."""

    def change(**environment: str | None) -> None:
        for name, value in environment.items():
            monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()

    yield change
    S3FileSystem.clear_instance_cache()


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


def test_a_creation_that_failed_is_told_unless_the_object_is_there(s3: Proxy) -> None:
    s3.faults = [Fault("403", 1, "PUT /open-bucket/once/b")]
    with pytest.raises(StorageError, match="^cannot write s3://open-bucket/once/b: access was refused"):
        storage.create_once(f"{OPEN}/once/b", b"first")
    storage.create_once(f"{OPEN}/once/b", b"first")
    s3.faults = [Fault("403", 1, "PUT /open-bucket/once/b")]
    storage.create_once(f"{OPEN}/once/b", b"second")
    assert storage.read_bytes(f"{OPEN}/once/b") == b"first"


def test_one_bucket_by_two_schemes(s3: Proxy) -> None:
    storage.publish(f"{OPEN}/schemes/a.tar", b"x")
    found = find_shards(["s3a://open-bucket/schemes", f"S3{OPEN[2:]}/schemes/a.tar", f"{OPEN}/schemes/*"])
    assert [(shard.uri, shard.former_uri) for shard in found] == [
        (f"{OPEN}/schemes/a.tar", "s3a://open-bucket/schemes/a.tar")
    ]


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
def test_an_address_that_is_none_is_the_row_s_own_trouble(s3: Proxy, name: str) -> None:
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
    """s3fs cuts what is larger than 100 MB into parts; here what is larger than 10 MB."""
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
    """The errors of every operation, each refused at once: nothing secret in it, no second try."""
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
    assert [error.kind for error in errors] == ["credentials"] * 2 + ["denied"] * 2 + ["credentials"]  # HEAD says less


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


def write_inputs(folder: Path) -> None:
    """The same six pictures in every format."""
    write_tar(folder / "plain" / "000.tar", samples(3))
    write_tar(folder / "plain" / "001.tar", samples(3, first=3))
    write_tar(folder / "packed" / "x.tar.gz", samples(6), compress=True)
    pictures = {f"{number:05d}.jpg": picture(number) for number in range(6)}
    captions = [f"caption {number}" for number in range(6)]
    write_parquet(folder / "bytes" / "x.parquet", {"image": [*pictures.values()], "caption": captions})
    write_parquet(folder / "uris" / "x.parquet", {"url": [f"../loose/{name}" for name in pictures], "text": captions})
    captioned = dict(zip(pictures, captions, strict=True))
    lines = [json.dumps({"image": f"../loose/{name}", "text": text}) for name, text in captioned.items()]
    write_folder(folder / "lines", {"x.jsonl": "\n".join(lines).encode()})
    texts = {name.replace("jpg", "txt"): text.encode() for name, text in captioned.items()}
    write_folder(folder / "loose", {**pictures, **texts})


@pytest.fixture(scope="module")
def inputs(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.mark.parametrize(
    "pattern",
    ["plain/{000..001}.tar", "plain/*.tar", "**/00?.tar", "packed", "bytes/x.parquet", "uris", "lines", "loose"],
)
def test_inputs_of_every_kind(s3: Proxy, inputs: Path, tmp_path: Path, pattern: str) -> None:
    for file in storage.iter_files(str(inputs)):
        uri = f"{OPEN}/inputs{file.uri.removeprefix(str(inputs))}"
        if storage.stat(uri) is None:
            storage.publish(uri, storage.read_bytes(file.uri))
    output = f"{OPEN}/outputs/{tmp_path.name}"
    measured = measure(find_shards([f"{OPEN}/inputs/{pattern}"]), Columns(), output)
    plan = make_plan(measured, layout.list_output(output), "c" * 10, 4)
    found = [sample for chunk in plan.chunks for sample in read_chunk(chunk, Columns())]
    assert [sample.problem for sample in found] == [None] * 6
    assert [(sample.image, sample.caption) for sample in found] == [
        (picture(number), f"caption {number}") for number in range(6)
    ]


def test_inputs_that_may_not_be_read_are_setting_errors(s3: Proxy, become: Become) -> None:
    with pytest.raises(SettingError, match="--input 's3://absent-bucket/x' cannot be read: .* no bucket"):
        find_shards(["s3://absent-bucket/x"])
    with pytest.raises(SettingError, match="there is nothing at s3://open-bucket/absent.tar"):
        find_shards([f"{OPEN}/absent.tar"])
    become(AWS_ACCESS_KEY_ID=READER_KEY, AWS_SECRET_ACCESS_KEY=READER_SECRET)
    for pattern in ("x.tar", "*.tar", "{0..1}.tar", ""):
        with pytest.raises(SettingError, match="access was refused"):
            find_shards([f"{CLOSED}/{pattern}"])


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


def test_status_costs_a_page_of_each_folder_and_a_record(s3: Proxy, tmp_path: Path) -> None:
    output = f"{OPEN}/status/{tmp_path.name}"
    write_tar(tmp_path / "a.tar", samples(30))
    measured = measure(find_shards([str(tmp_path / "a.tar")]), Columns(), output)
    plan = make_plan(measured, layout.list_output(output), "c" * 16, 1)
    for chunk in plan.chunks[:20]:
        finish(output, chunk)
    options = {"limit": None, "since": None, "max_error_rate": 1.0}
    record = RunRecord(output, {"job": "x", "configuration": "c" * 16, "options": options})
    record.planned(measured, plan, is_whole=True)
    s3.requests.clear()
    status = read_status(output)
    assert (status.ok, status.pending, status.exit_code) == (20, 10, 1)
    assert len(s3.requests) <= 7, s3.requests  # marks, data, errors (and is that a file?), runs; record, plan


def test_finding_many_shards_costs_few_requests(s3: Proxy) -> None:
    for number in range(20):
        storage.publish(f"{OPEN}/many/{number:02d}.tar", b"x")
    for pattern, most in [("{00..19}.tar", 24), ("*.tar", 8), ("", 8)]:
        s3.requests.clear()
        assert len(find_shards([f"{OPEN}/many/{pattern}"])) == 20
        assert len(s3.requests) <= most, s3.requests


def test_a_refused_row_fails_and_one_whose_credentials_have_expired_waits(s3: Proxy, tmp_path: Path) -> None:
    storage.publish(
        f"{OPEN}/trouble/list.jsonl", b'{"image": "a.jpg"}\n{"image": "b.jpg"}\n{"image": "../../closed"}\n'
    )
    storage.publish(f"{OPEN}/trouble/a.jpg", b"a")
    measured = measure(find_shards([f"{OPEN}/trouble/list.jsonl"]), Columns(), str(tmp_path))
    (chunk,) = make_plan(measured, layout.list_output(str(tmp_path)), "c" * 10, 4).chunks
    assert [sample.problem is None for sample in read_chunk(chunk, Columns())] == [True, False, False]
    s3.faults = [Fault("403", 1, "GET /open-bucket/trouble/a.jpg")]
    (sample, *_) = read_chunk(chunk, Columns())
    assert sample.problem is not None and "access was refused" in sample.problem.reason
    assert not isinstance(sample.problem, PassingError)
    s3.faults = [Fault("expired", 1, "GET /open-bucket/trouble/a.jpg")]
    (sample, *_) = read_chunk(chunk, Columns())
    assert isinstance(sample.problem, PassingError) and sample.problem.is_shared
    assert "rejected as ExpiredToken" in sample.problem.reason


def test_a_model_lies_in_the_store(s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = write_tiny_model(tmp_path / "tiny")
    fs, _ = storage.filesystem(OPEN)
    fs.put(str(local), f"{OPEN.removeprefix('s3://')}/models/tiny", recursive=True)
    there, here = (identify_model(UniConModel(model=place, conditions=("depth",)))
                   for place in (f"{OPEN}/models/tiny", str(local)))  # fmt: skip
    assert (there.weights_sha256, there.recommended) == (here.weights_sha256, here.recommended)
