"""Files that a row references and that cannot be fetched: temporarily or permanently."""

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.errors import PassingError, SampleError
from pipelines.readers import references
from pipelines.readers.references import fetch
from pipelines.runs.status import read_status
from pipelines.samples import STEM, chunk_name, version_stem, waiting_in
from pipelines.storage.errors import StorageError
from tests.support.in_process import HookedStore, World, images, once
from tests.support.inputs import write_folder
from tests.support.object_store import free_ports
from tests.support.web_server import WebServer, running_web_server

PASSING = [0, 408, 425, 429, 500, 502, 503, 504, 520]
LASTING = [400, 401, 403, 404, 410, 418, 451]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(references, "WAITS_S", (0.01, 0.01))
    with running_web_server() as server:
        yield server


@pytest.mark.parametrize("status", PASSING + LASTING)
def test_answers_of_a_web_server(site: WebServer, status: int) -> None:
    site.statuses["/a.jpg"] = status
    with pytest.raises(SampleError) as caught:
        fetch(f"{site.address}/a.jpg")
    is_passing = status in PASSING
    assert isinstance(caught.value, PassingError) is is_passing
    assert len(site.requests) == (1 if not is_passing else 3 if status else 6)  # the driver repeats unanswered ones
    assert ("for now" in caught.value.reason) is is_passing
    assert "same command" not in caught.value.reason


def test_nobody_there_is_passing_and_bad_addresses_are_not(site: WebServer) -> None:
    (port,) = free_ports(1)
    for uri in (f"http://127.0.0.1:{port}/a.jpg", "http://no-such-host.invalid/a.jpg", "https://127.0.0.1:1/x"):
        with pytest.raises(PassingError):
            fetch(uri)
    for uri in ("http://", "nowhere://x/y.jpg", "http://[/a.jpg"):
        with pytest.raises(SampleError) as caught:
            fetch(uri)
        assert not isinstance(caught.value, PassingError), uri


def test_an_attempt_that_succeeds_counts(site: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/a.jpg"] = b"a"
    site.statuses["/a.jpg"] = 503
    monkeypatch.setattr(references.time, "sleep", lambda wait_s: site.statuses.clear())
    assert fetch(f"{site.address}/a.jpg").content == b"a"
    assert len(site.requests) == 2


def lines(world: World, site: WebServer, *names: str) -> None:
    rows = [{"key": name, "image": f"{site.address}/{name}.jpg"} for name in names]
    (world.inputs / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    site.files = {f"/{name}.jpg": f"{name} v1".encode() for name in names}


def errors(world: World) -> dict[str, str]:
    tables = [pq.ParquetFile(path).read() for path in sorted((world.output / "errors").glob("*.parquet"))]
    return {row["key"]: row["stage"] for table in tables for row in table.to_pylist()}


def test_the_same_command_fetches_what_could_not_be_had(site: WebServer, tmp_path: Path) -> None:
    world = World(tmp_path)
    lines(world, site, *"abcdef")
    site.statuses = {"/a.jpg": 503, "/b.jpg": 0, "/c.jpg": 404, "/d.jpg": 410}
    assert world.run() == 1
    assert (errors(world), world.values().keys()) == (
        {"a": "fetch", "b": "fetch", "c": "read", "d": "read"},
        {"e", "f"},
    )
    (stem,) = world.stems()
    assert stem.endswith(".ok2.bad4.wait2")
    assert any("2 samples in errors/ could not be fetched for now" in text for text in world.said)
    before = {path: path.stat().st_mtime_ns for path in world.output.rglob("*.parquet")}

    site.requests.clear()
    assert world.run() == 1, "they wait on"
    assert set(site.requests) == {"/a.jpg", "/b.jpg"}, "nothing else is fetched again"
    assert {path: path.stat().st_mtime_ns for path in world.output.rglob("*.parquet")} == before

    site.statuses |= {"/a.jpg": 200, "/b.jpg": 404}
    assert world.run() == 0
    assert errors(world) == {"b": "read", "c": "read", "d": "read"}
    assert world.rows() == once("abcdef")
    (stem,) = world.stems()
    assert stem.endswith(".ok3.bad3")
    site.requests.clear()
    assert (world.run(), site.requests) == (0, [])


def test_a_host_that_is_gone_can_be_given_up(site: WebServer, tmp_path: Path) -> None:
    world = World(tmp_path)
    lines(world, site, *"abc")
    site.statuses = {"/a.jpg": 503}
    assert [world.run(), world.run(give_up=True), world.run(give_up=True)] == [1, 0, 0]
    assert world.run() == 1, "without the option it is tried again"
    site.statuses = {}
    assert world.run(give_up=True) == 0 and errors(world) == {"a": "fetch"}
    assert world.run(retry_errors=True) == 0 and errors(world) == {}


def test_a_chunk_of_waiting_samples_is_published(site: WebServer, tmp_path: Path) -> None:
    """A dead host of all rows of a chunk is not a failure of the chunk, since the chunks of other hosts continue."""
    world = World(tmp_path)
    lines(world, site, *"ab")
    site.statuses = {"/a.jpg": 500, "/b.jpg": 500}
    assert world.run() == 1 and set(errors(world).values()) == {"fetch"}
    site.statuses = {}
    assert world.run() == 0 and world.rows() == once("ab")


def test_retries_of_all_errors_and_waiting_ones_do_not_mix_up(site: WebServer, tmp_path: Path) -> None:
    world = World(tmp_path)
    lines(world, site, *"abcd")
    site.statuses = {"/a.jpg": 404, "/b.jpg": 503}
    assert world.run(fails=["c"]) == 1
    site.statuses = {"/a.jpg": 503, "/b.jpg": 503}
    assert world.run(retry_errors=True) == 1, "a lasting failure may become a passing one"
    assert errors(world) == {"a": "fetch", "b": "fetch"}
    site.statuses = {}
    assert world.run() == 0 and errors(world) == {} and world.rows() == once("abcd")


def test_the_status_counts_waiting_samples(site: WebServer, tmp_path: Path) -> None:
    world = World(tmp_path)
    lines(world, site, *"abc")
    site.statuses = {"/a.jpg": 429}
    world.run()
    status = read_status(str(world.output))
    assert (status.waiting, status.bad, status.pending, status.exit_code) == (1, 1, 0, 1)
    world.run(give_up=True)
    assert read_status(str(world.output)).exit_code == 0


def test_names_of_versions_say_who_waits() -> None:
    name = chunk_name("a", "s3://b/a.tar", "f" * 16, 0, 10, "c" * 16)
    stems = [version_stem(name, 7, failed, waits) for failed, waits in
             (([1, 2, 3], ()), ([1, 2, 3], {1}), ([1, 2, 3], {2}), ([1, 2, 3], {1, 2}))]  # fmt: skip
    assert len(set(stems)) == 4
    assert [waiting_in(f"s3://b/out/errors/{stem}.parquet") for stem in stems] == [0, 1, 1, 2]
    assert all(STEM.fullmatch(stem) for stem in stems)


def test_passing_errors_travel() -> None:
    error = pickle.loads(pickle.dumps(PassingError("no answer", is_shared=True)))
    assert (type(error), error.stage, error.reason, error.is_shared) == (PassingError, "fetch", "no answer", True)


class Away(HookedStore):
    """A store in which some images are unavailable; the bucket is a folder on disk."""

    def __init__(self, root: Path, away: set[str]) -> None:
        super().__init__()
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "away", away)

    def pinned(self, fingerprints: Mapping[str, str]) -> "Away":
        return self

    def read_bytes(self, uri: str, limit_bytes: int | None = None) -> bytes:
        if uri.endswith(".jpg") and uri[-5] in self.away:  # type: ignore[attr-defined]
            raise StorageError("away", "unreachable")
        return super().read_bytes(uri.replace("s3://", f"{self.root}/bucket/"), limit_bytes)  # type: ignore[attr-defined]


def test_a_storage_that_is_away_fails_the_chunk(tmp_path: Path) -> None:
    """If nothing of a chunk can be read from the shared storage, no sample is at fault, and the run may stop."""
    world = World(tmp_path)
    rows = [{"key": key, "image": f"s3://in/{key}.jpg"} for key in "abc"]
    (world.inputs / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for key in "abc":
        write_folder(tmp_path / "bucket" / "in", {f"{key}.jpg": f"{key} v1".encode()})
    away = set("abc")
    store = Away(tmp_path, away)
    assert world.run(store=store) == 1 and not world.stems() and errors(world) == {}
    away -= {"a", "c"}
    assert world.run(store=store) == 1 and errors(world) == {"b": "fetch"} and world.rows() == once("abc")
    away.clear()
    assert world.run(store=store) == 0 and errors(world) == {}


def test_a_chunk_of_nothing_but_waiting_samples_can_be_given_up(tmp_path: Path) -> None:
    """For example, a file on a bad sector that is alone in its chunk."""
    world = World(tmp_path)
    images(world, "abc")
    store = Away(tmp_path, {"b"})
    assert world.run(store=store, chunk_size=1) == 1 and world.rows() == once(["a.jpg", "c.jpg"])
    assert any("--give-up" in text for text in world.said)
    assert world.run(store=store, give_up=True) == 0
    assert errors(world) == {"b.jpg": "fetch"} and world.rows() == once(["a.jpg", "b.jpg", "c.jpg"])


def test_hosts_of_other_schemes_wait_and_drivers_that_are_not_there_do_not() -> None:
    with pytest.raises(PassingError) as caught:
        fetch("ftp://127.0.0.1:1/a.jpg")
    assert not caught.value.is_shared, "another row names another host"
    for uri, cure in (("sftp://h/a.jpg", "not installed"), ("blob:http://h/a", "Protocol not known")):
        with pytest.raises(SampleError, match=cure) as lasting:
            fetch(uri)
        assert not isinstance(lasting.value, PassingError)


def test_a_row_that_needs_credentials_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Away, uri: str, limit_bytes: int | None = None) -> bytes:
        if uri.startswith("s3://"):
            raise StorageError("no usable credentials were found", "credentials")
        return HookedStore.read_bytes(self, uri, limit_bytes)

    monkeypatch.setattr(Away, "read_bytes", read)
    world = World(tmp_path)
    images_at = write_folder(tmp_path / "images", {"b.jpg": b"b v1"})
    rows = [{"key": "a", "image": "s3://in/a.jpg"}, {"key": "b", "image": f"{images_at}/b.jpg"}]
    (world.inputs / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert world.run(store=Away(tmp_path, set())) == 1
    assert errors(world) == {"a": "fetch"} and world.rows() == once("ab")


def test_an_image_that_waits_and_is_deleted_waits_no_more(tmp_path: Path) -> None:
    world = World(tmp_path)
    images(world, "abc")
    away = {"b", "c"}
    store = Away(tmp_path, away)
    assert world.run(store=store) == 1 and errors(world) == {"b.jpg": "fetch", "c.jpg": "fetch"}
    (world.inputs / "b.jpg").unlink()
    assert world.run(store=store) == 1, "the other one waits"
    away.clear()
    assert [world.run(store=store), world.run(store=store)] == [0, 0]
    assert world.rows() == once(["a.jpg", "b.jpg", "c.jpg"]) and errors(world) == {"b.jpg": "fetch"}
