"""Stores: results in order with and without threads, and the check of exclusive creation."""

import pickle
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.errors import ShardChangedError
from pipelines.readers.references import fetch, read_ahead
from pipelines.storage.store import FILES, FsspecStore, honors_create_once, map_concurrently


@dataclass(frozen=True)
class OneAtATime(FsspecStore):
    """A store without concurrent calls, like that of a simulation."""

    @property
    def is_concurrent(self) -> bool:
        return False


def test_results_come_in_order_and_in_this_thread_where_the_store_wants_that() -> None:
    for store in (FILES, OneAtATime()):
        threads: set[int] = set()

        def double(number: int, threads: set[int] = threads) -> int:
            threads.add(threading.get_ident())
            return 2 * number

        expected = [2 * number for number in range(50)]
        assert list(map_concurrently(store, double, range(50), 4)) == expected
        assert list(read_ahead(double, range(50), store)) == expected
        assert (threads == {threading.get_ident()}) == (not store.is_concurrent)


def test_a_store_travels_to_workers() -> None:
    assert pickle.loads(pickle.dumps(FILES)) == FILES


@dataclass(frozen=True)
class Careless(FsspecStore):
    """A store without conditional writes."""

    def create_once(self, uri: str, content: bytes) -> None:
        self.publish(uri, content)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_exclusive_creation_is_probed(scheme: str, tmp_path: Path) -> None:
    root = str(tmp_path) if scheme == "file" else f"memory://probe-{tmp_path.name}"
    uri = storage.join(root, "_chunks", "probe")
    assert honors_create_once(FILES, uri)
    assert storage.list_files(root) == []


def test_a_storage_that_writes_anyway_is_found_out(tmp_path: Path) -> None:
    uri = f"memory://careless-{tmp_path.name}/probe"
    assert not honors_create_once(Careless(), uri)
    assert not storage.exists(uri)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_pinned_store_reads_the_version_it_is_pinned_to(scheme: str, tmp_path: Path) -> None:
    root = str(tmp_path) if scheme == "file" else f"memory://pinned-{tmp_path.name}"
    uri, other = storage.join(root, "a"), storage.join(root, "b")
    for place in (uri, other):
        storage.publish(place, b"first")
    info = storage.stat(uri)
    assert info is not None
    store = FILES.pinned({uri: info.fingerprint})
    with store.open_read(uri) as file:
        assert file.read() == store.read_bytes(uri) == store.read_bytes(other) == b"first"
    storage.publish(uri, b"second")
    if scheme == "file":
        for read in (store.open_read, store.read_bytes, lambda place: fetch(place, store)):
            with pytest.raises(ShardChangedError, match="/a has changed while it was read"):
                read(uri)
    assert FILES.read_bytes(uri) == b"second"
