import json

import pytest

from pipelines.errors import ShardChangedError
from pipelines.storage import file_info
from pipelines.storage.errors import StorageError
from tests.simulation.chance import Chance, Place
from tests.simulation.disk import DiskStore, Platter, SimulatedDisk
from tests.simulation.store import SimulatedStore
from tests.simulation.world import World

ROOT = "sim://bucket/out"


def at(who: str, number: int, decision: str) -> tuple[Place, str]:
    return Place(who, number, "point"), decision


def test_a_listing_may_be_newer_at_its_end_than_at_its_beginning() -> None:
    world = World(Chance(decisions=dict([at("lister", 2, "switch writer")])))
    store, found = SimulatedStore(world, page_files=2), []
    for name in ("b", "c", "d"):
        world.objects.put(f"{ROOT}/{name}", b"", 0)
    world.scheduler.spawn("lister", lambda: found.extend(store.list_uris(ROOT)))
    world.scheduler.spawn("writer", lambda: [store.publish(f"{ROOT}/{name}", b"") for name in ("a", "e")])
    world.scheduler.run()
    assert [uri[-1] for uri in found] == ["b", "c", "d", "e"]  # both were written between the two pages


def test_a_stale_listing_misses_the_latest_changes() -> None:
    world = World(Chance(decisions=dict([at("lister", 7, "stale 2")])))  # after two points of each write
    store, found = SimulatedStore(world), []

    def body() -> None:
        for name in ("a", "b"):
            store.publish(f"{ROOT}/{name}", b"")
        store.remove(f"{ROOT}/a")
        found.extend(uri[-1] for uri in store.list_uris(ROOT))

    world.scheduler.spawn("lister", body)
    world.scheduler.run()
    assert found == ["a"]
    assert [uri[-1] for uri in store.list_uris(ROOT)] == ["b"]


def test_a_conditional_write_keeps_what_is_there_where_the_storage_knows_conditions() -> None:
    for knows, content in ((True, b"first"), (False, b"second")):
        store = SimulatedStore(World(Chance()), knows_conditions=knows)
        store.create_once(f"{ROOT}/claim", b"first")
        store.create_once(f"{ROOT}/claim", b"second")
        assert store.read_bytes(f"{ROOT}/claim") == content


@pytest.mark.parametrize(("event", "there"), [("fail", False), ("fail after", True)])
def test_a_write_that_fails_may_have_taken_effect(event: str, there: bool) -> None:
    world = World(Chance(decisions=dict([at("writer", 1, event)])))
    store = SimulatedStore(world)
    thread = world.scheduler.spawn("writer", lambda: store.publish(f"{ROOT}/a", b""))
    world.scheduler.run()
    assert isinstance(thread.error, StorageError)
    assert store.exists(f"{ROOT}/a") == there


def test_a_write_that_failed_may_take_effect_much_later() -> None:
    world = World(Chance(decisions=dict([at("writer", 1, "fail late")])))
    store = SimulatedStore(world)
    world.scheduler.spawn("writer", lambda: store.publish(f"{ROOT}/a", b""))
    world.scheduler.run()
    assert not store.exists(f"{ROOT}/a")
    world.settle()
    assert store.exists(f"{ROOT}/a")


def test_a_pinned_store_refuses_another_version() -> None:
    store = SimulatedStore(World(Chance()))
    store.publish(f"{ROOT}/a", b"1")
    first = store.stat(f"{ROOT}/a")
    assert first is not None
    pinned = store.pinned({f"{ROOT}/a": first.fingerprint})
    assert pinned.read_bytes(f"{ROOT}/a") == b"1"
    store.publish(f"{ROOT}/a", b"2")
    with pytest.raises(ShardChangedError):
        pinned.open_read(f"{ROOT}/a")
    store.publish(f"{ROOT}/a", b"1")
    assert pinned.read_bytes(f"{ROOT}/a") == b"1"


def disk_store() -> tuple[DiskStore, Platter]:
    world = World(Chance())
    platter = Platter(world.objects, ROOT)
    return DiskStore(world, disk=SimulatedDisk(world, platter)), platter


def test_what_is_published_on_a_disk_survives_every_loss_of_power() -> None:
    for number in range(50):
        store, platter = disk_store()
        store.publish(f"{ROOT}/a", b"first")
        store.publish(f"{ROOT}/a", b"second")
        store.create_once(f"{ROOT}/b", b"whole")
        platter.lose_power(number)
        assert [store.read_bytes(f"{ROOT}/{name}") for name in "ab"] == [b"second", b"whole"]


def test_what_is_not_synced_is_torn_or_gone() -> None:
    outcomes = set()
    for number in range(50):
        store, platter = disk_store()
        store.disk.write(f"{ROOT}/a", b"content")
        platter.lose_power(number)
        outcomes.add(store.read_bytes(f"{ROOT}/a") if store.exists(f"{ROOT}/a") else None)
    assert outcomes == {None, b"", b"con", b"content"}


def test_a_removal_is_safe_once_the_folder_is_settled() -> None:
    for is_settled, outcomes in ((False, {True, False}), (True, {False})):
        found = set()
        for number in range(20):
            store, platter = disk_store()
            store.publish(f"{ROOT}/a", b"content")
            store.remove(f"{ROOT}/a")
            if is_settled:
                store.settle([ROOT])
            platter.lose_power(number)
            found.add(store.exists(f"{ROOT}/a"))
        assert found == outcomes


def test_no_listing_of_a_disk_shows_what_a_killed_writer_left() -> None:
    store, _ = disk_store()
    store.disk.write(f"{ROOT}/{file_info.temporary_name('a.json')}", json.dumps({}).encode())
    store.publish(f"{ROOT}/b.json", b"{}")
    assert store.list_uris(ROOT) == [f"{ROOT}/b.json"]
