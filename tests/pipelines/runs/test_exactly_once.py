"""Every sample exactly once when things coincide: overlapping runs, kills, changes by users, failing storage.

Each test is a schedule that once lost or duplicated rows although every command exited with 0. `tests/simulation` tries
many more.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.dataset import layout
from pipelines.errors import SettingError
from pipelines.samples import Chunk
from pipelines.storage.store import FILES
from tests.support.in_process import (
    Do,
    HookedStore,
    KilledError,
    World,
    files,
    images,
    interrupted_everywhere,
    keys,
    once,
    tar,
    worlds,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_limited_run_that_lists_between_data_and_mark_of_another_run(world: World) -> None:
    tar(world, keys(25))
    codes = []

    def before(operation: str, uri: str) -> None:
        if operation == "create" and "/done/" in uri and "0000010-0000020" in uri and not codes:
            codes.append(world.run(limit=12))

    codes.append(world.run(store=HookedStore(before=before)))
    assert codes == [0, 0]
    assert world.rows() == once(keys(25))


@pytest.mark.parametrize("limit", [None, 12])
def test_a_folder_that_grows_while_two_runs_work(world: World, limit: int | None) -> None:
    images(world, keys(100, 1))
    codes = []

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        if limit is None:
            images(world, keys(1))  # it sorts first
        codes.append(world.run(limit=limit))
        for chunk in chunks:
            do(chunk)

    codes.append(world.run(during=during))
    assert codes == [0, 0]
    assert world.rows() == once(files(keys(101) if limit is None else keys(100, 1)))


def test_a_storage_that_refuses_any_write_of_a_retry(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        tar(world, keys(12))
        assert world.run(fails={"00003", "00007", "00011"}) == 0

    def check(world: World) -> None:
        assert world.rows().keys() == set(keys(12)), "nothing is lost even before the command continues"
        assert world.until_done(fails={"00007"}, retry_errors=True)[-1] == 0
        assert world.rows() == once(keys(12))
        assert world.failed() == {"00007"}

    interrupted_everywhere(
        worlds(tmp_path, prepare),
        lambda world, store: world.run(fails={"00007"}, retry_errors=True, store=store),
        check,
    )


def test_a_retry_that_was_killed_and_is_not_asked_for_again(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        tar(world, keys(12))
        assert world.run(fails={"00003", "00007"}) == 0

    def check(world: World) -> None:
        assert world.until_done()[-1] == 0
        assert world.rows() == once(keys(12))
        assert all(version.ok + version.bad == version.name.stop - version.name.start
                   for version in layout.list_output(str(world.output)).finished)  # fmt: skip

    interrupted_everywhere(
        worlds(tmp_path, prepare), lambda world, store: world.run(retry_errors=True, store=store), check
    )


def test_of_two_settings_that_begin_at_once_one_is_refused(world: World) -> None:
    tar(world, keys(25))

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        with pytest.raises(SettingError, match="seed was 1 and is now 2"):
            world.run(settings={"seed": 2})
        for chunk in chunks:
            do(chunk)

    assert world.run(settings={"seed": 1}, during=during) == 0
    assert world.run(settings={"seed": 1}) == 0
    assert world.rows() == once(keys(25))


def test_runs_that_overlap_and_fail_differently(world: World) -> None:
    tar(world, keys(20))
    codes = []

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        do(chunks[0])
        codes.append(world.run(fails={"00001", "00012"}))
        do(chunks[1])

    codes.append(world.run(fails={"00002", "00013"}, during=during))
    assert codes == [0, 0]
    assert world.rows() == once(keys(20))


def test_a_changed_file_that_is_deleted_after_a_kill(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        images(world, keys(12))
        assert world.run() == 0
        images(world, ["00004"], version=2)

    def check(world: World) -> None:
        (world.inputs / "00004.jpg").unlink()
        assert world.until_done()[-1] == 0
        assert world.rows() == once(files(keys(12))), "the row of a deleted file stays"

    interrupted_everywhere(worlds(tmp_path, prepare), lambda world, store: world.run(store=store), check)


def test_three_runs_with_and_without_a_limit(world: World) -> None:
    tar(world, keys(25))
    codes = []

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        codes.append(world.run(limit=12))

        def inner(more: Sequence[Chunk], do_inner: Do) -> None:
            for chunk in chunks:
                do(chunk)
            for chunk in more:
                do_inner(chunk)

        codes.append(world.run(during=inner))

    codes.append(world.run(during=during))
    assert codes == [0, 0, 0]
    assert world.rows() == once(keys(25))


def test_retries_that_overlap(world: World) -> None:
    tar(world, keys(10))
    world.run(fails={"00003", "00007"})
    codes = []

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        codes.append(world.run(fails={"00003"}, retry_errors=True))
        for chunk in chunks:
            do(chunk)

    codes.append(world.run(fails={"00007"}, retry_errors=True, during=during))
    assert world.rows() == once(keys(10))
    assert world.until_done(retry_errors=True)[-1] == 0
    assert (world.rows(), world.failed()) == (once(keys(10)), set())


def test_a_kill_while_removing_and_then_the_old_shard_again(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        tar(world, keys(25))
        world.run(fails={"00003", "00017"})
        tar(world, keys(27), version=2)

    def check(world: World) -> None:
        tar(world, keys(25))
        assert world.until_done()[-1] == 0
        assert world.rows() == once(keys(25))
        assert {value.split()[1] for value in world.values().values()} == {"v1"}

    interrupted_everywhere(worlds(tmp_path, prepare), lambda world, store: world.run(store=store), check)


def test_a_failed_chunk_of_a_retry_gives_exit_code_1(world: World) -> None:
    tar(world, keys(25))
    assert world.run(fails={"00003", "00013"}) == 0
    assert world.run(retry_errors=True, during=lambda chunks, do: None) == 1
    assert world.run(retry_errors=True) == 0
    assert world.failed() == set()


def test_the_same_command_changes_nothing(world: World) -> None:
    tar(world, keys(25))
    images(world, keys(7, 50))
    assert world.run(fails={"00003"}) == 0
    changes: list[str] = []
    store = HookedStore(before=lambda operation, uri: changes.append(uri))
    assert world.run(store=store) == 0
    assert [uri for uri in changes if "/runs/" not in uri and "/probe-" not in uri] == []
    assert FILES.is_concurrent


def test_a_removal_that_is_slower_than_a_run_that_finishes_what_it_removes(world: World) -> None:
    """The run that removes has looked for the mark; then another run publishes the same rows, marks them and ends."""
    tar(world, keys(12))
    assert world.run(fails={"00003"}) == 0

    def dies(operation: str, uri: str) -> None:
        if operation != "remove" and "/done/" in uri and ".ok10.bad0" in uri:
            raise KilledError

    with pytest.raises(KilledError):
        world.run(retry_errors=True, store=HookedStore(before=dies))
    codes: list[int] = []
    lost: list[str] = []

    def before(operation: str, uri: str) -> None:
        if operation == "remove" and "/data/" in uri and ".ok10.bad0" in uri and not codes:
            codes.append(world.run(retry_errors=True))
        elif codes:
            lost.extend(set(keys(12)) - world.rows().keys())

    codes.append(world.run(store=HookedStore(before=before)))
    assert codes == [0, 0]
    assert not lost
    assert world.rows() == once(keys(12))
    assert world.failed() == set()


@pytest.mark.parametrize("form", [tar, images])
@pytest.mark.parametrize("limit", [None, 3])
def test_nothing_stays_of_what_is_written_after_its_removal(
    world: World, form: Callable[[World, Sequence[str]], object], limit: int | None
) -> None:
    """A limited run publishes under a name that another run has removed, or is killed before its mark."""
    form(world, keys(4))
    listed = keys(4) if form is tar else files(keys(4))
    dies_once = [True]

    def dies(operation: str, uri: str) -> None:
        if operation != "remove" and "/done/" in uri and dies_once and dies_once.pop():
            raise KilledError

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        with pytest.raises(KilledError):
            world.run(limit=3, store=HookedStore(before=dies))
        assert world.run() == 0  # removes what is unmarked of the limited run
        for chunk in chunks:
            do(chunk)

    assert world.run(limit=3, during=during) == 0
    assert world.rows() == once(listed)
    dies_once.append(True)
    with suppress(KilledError):
        world.run(limit=3, store=HookedStore(before=dies))
    assert world.run(limit=limit) == 0
    assert world.rows() == once(listed)
