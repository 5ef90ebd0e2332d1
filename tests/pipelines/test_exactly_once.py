"""Every sample exactly once, where two things happen together: runs that overlap, kills, users, a storage that fails.

Each test is a schedule that once lost or doubled rows while every command said 0. `tests/simulation` tries many more.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines import layout, storage
from pipelines.errors import SettingError
from pipelines.samples import Chunk
from pipelines.stages import row_seed, seed_of
from pipelines.status import read_status
from pipelines.store import FILES, FsspecStore
from tests.checkers import ROOT
from tests.in_process import Do, HookedStore, KilledError, World, once
from tests.inputs import write_folder, write_parquet, write_tar
from tests.simulation.job import CopyText


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def keys(count: int, first: int = 0) -> list[str]:
    return [f"{number:05d}" for number in range(first, first + count)]


def tar(world: World, names: Sequence[str], version: int = 1, name: str = "a.tar") -> Path:
    """A tar whose samples say their key and version; another version has another time."""
    path = write_tar(world.inputs / name, [(f"{key}.jpg", f"{key} v{version}".encode()) for key in names])
    os.utime(path, (version, version))
    return path


def images(world: World, names: Sequence[str], version: int = 1) -> None:
    """Loose files, likewise."""
    for name, content in {f"{key}.jpg": f"{key} v{version}".encode() for key in names}.items():
        write_folder(world.inputs, {name: content})
        os.utime(world.inputs / name, (version, version))


def files(names: Sequence[str]) -> list[str]:
    return [f"{key}.jpg" for key in names]


def dies_at(number: int, error: type[BaseException] = KilledError) -> HookedStore:
    """A store whose n-th change of rows, errors or marks raises before it happens."""
    changes = iter(range(1, 1_000_000))

    def before(operation: str, uri: str) -> None:
        if any(f"/{folder}/" in uri for folder in ("data", "errors", "done")) and next(changes) == number:
            raise error(28, f"{operation} {uri}")

    return HookedStore(before=before)


def interrupted_everywhere(
    world_of: Callable[[], World], run: Callable[[World, HookedStore], int], check: Callable[[World], None]
) -> None:
    """Stop a run before each of its changes, by a kill and by a storage that refuses, and check what comes of it."""
    for error in (KilledError, OSError):
        for number in range(1, 60):
            world = world_of()
            try:
                code = run(world, dies_at(number, error))
            except KilledError:
                code = -9
            check(world)
            if code == 0 and error is OSError or code == 0:
                break
        else:
            raise AssertionError("a run of so few samples has fewer changes")
    assert number > 3


def worlds(tmp_path: Path, prepare: Callable[[World], None]) -> Callable[[], World]:
    """Fresh worlds, each prepared alike."""
    numbers = iter(range(1_000))

    def new() -> World:
        folder = tmp_path / f"world{next(numbers)}"
        folder.mkdir()
        world = World(folder)
        prepare(world)
        return world

    return new


def test_a_limited_run_that_lists_between_data_and_mark_of_another_run(world: World) -> None:
    tar(world, keys(25))
    codes = []

    def before(operation: str, uri: str) -> None:
        if operation == "publish" and "/done/" in uri and "0000010-0000020" in uri and not codes:
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
        assert world.rows().keys() == set(keys(12)), "nothing is lost even before the command has gone on"
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


@pytest.mark.parametrize("moment", ["write", "fsync"])
def test_a_writer_that_is_killed_leaves_nothing_that_is_read(world: World, moment: str) -> None:
    tar(world, keys(25))

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        stem = layout.version_stem(chunks[0].name, 10, [])
        (world.output / "data").mkdir()
        for uri in (
            layout.data_uri(str(world.output), stem),
            layout.run_uri(str(world.output), "20260101T000000.000Z-a"),
        ):
            killed_while_publishing(uri, moment)
        raise KilledError

    with pytest.raises(KilledError):
        world.run(during=during)
    assert [path for path in (world.output / "data").iterdir() if path.name.endswith(".tmp")]
    assert world.run() == 0
    assert world.rows() == once(keys(25))
    assert storage.list_uris(str(world.output / "data")) == sorted(map(str, (world.output / "data").glob("*.parquet")))
    assert len(read_status(str(world.output)).runs) == 2


def killed_while_publishing(uri: str, moment: str) -> None:
    """SIGKILL to a process that publishes, when its file is open or at its fsync."""
    code = f"""
import builtins, os, signal
from pipelines import storage
def die(*arguments): os.kill(os.getpid(), signal.SIGKILL)
real = builtins.open
def opened(path, mode="r", *arguments, **options):
    file = real(path, mode, *arguments, **options)
    if "w" in mode or "x" in mode: file.write(b"PAR1"); file.flush(); die()
    return file
if {moment!r} == "write": builtins.open = opened
else: os.fsync = die
storage.publish({uri!r}, b"PAR1 half of a file")
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


def test_an_output_below_the_input_through_a_link_is_no_input(world: World) -> None:
    tar(world, keys(25))
    (world.root / "scratch").symlink_to(world.inputs)
    world.output = world.root / "scratch" / "out"
    for _ in range(3):
        assert world.run() == 0
        assert world.rows() == once(keys(25))


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


@pytest.mark.parametrize("form", ["tar", "parquet", "folder"])
def test_an_input_that_is_rewritten_while_it_is_read(world: World, form: str) -> None:
    def write(names: Sequence[str], version: int) -> None:
        if form == "tar":
            tar(world, names, version)
        elif form == "folder":
            images(world, names, version)
        else:
            content = [f"{key} v{version}".encode() for key in names]
            path = write_parquet(world.inputs / "a.parquet", {"key": names, "image": content})
            os.utime(path, (version, version))

    write(keys(20), 1)

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        do(chunks[0])
        write(keys(20)[::-1], 5)  # as many bytes at other places
        do(chunks[1])

    world.run(during=during)
    assert world.until_done()[-1] == 0
    names = files(keys(20)) if form == "folder" else keys(20)
    assert world.rows() == once(names)
    assert {value.split()[1] for value in world.values().values()} == {"v5"}


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


def test_a_kill_while_tidying_and_then_the_old_shard_again(tmp_path: Path) -> None:
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


def test_a_damaged_shard_is_a_row_and_the_others_go_on(world: World) -> None:
    tar(world, keys(5))
    write_parquet(world.inputs / "b.parquet", {"key": ["p"], "image": [b"x"]})
    content = (world.inputs / "b.parquet").read_bytes()
    for number in range(0, len(content), 97):
        (world.inputs / f"c{number}.parquet").write_bytes(content[:number])
    assert world.run(max_error_rate=1.0) == 0
    assert {*keys(5), "p"} < world.rows().keys()


def test_a_shard_that_becomes_empty_takes_its_rows_along(world: World) -> None:
    tar(world, keys(5))
    tar(world, keys(5, 10), name="b.tar")
    assert world.run() == 0
    tar(world, [], version=2)
    assert world.run() == 0
    assert world.rows() == once(keys(5, 10))
    tar(world, [], version=2, name="b.tar")
    assert world.run() == 0
    assert world.rows() == once([])
    with pytest.raises(SettingError, match="not one sample"):
        world.run()


@pytest.mark.parametrize("folder", ["data", "errors", "_chunks/done"])
def test_a_file_that_is_deleted_by_hand_is_made_again(world: World, folder: str) -> None:
    tar(world, keys(25))
    fails = {"00003", "00013", "00023"}
    assert world.run(fails=fails) == 0
    stems = world.stems()
    for path in sorted((world.output / folder).iterdir())[:2]:
        path.unlink()
    assert world.run(fails=fails) == 0
    assert (world.rows(), world.stems()) == (once(keys(25)), stems)


def test_one_input_named_in_several_ways_is_one(world: World) -> None:
    tar(world, keys(25))
    images(world, [f"sub/{key}" for key in keys(4, 50)])
    (world.root / "link").symlink_to(world.inputs)
    (world.root / "tar.tar").symlink_to(world.inputs / "a.tar")
    spellings = [world.inputs, world.inputs / "sub", world.root / "link", f"/{world.inputs}", world.root / "tar.tar"]
    spellings += [
        os.path.relpath(world.inputs),
        f"{world.inputs}/./",
        f"{world.inputs}/*.tar",
        f"file://{world.inputs}",
    ]
    for inputs in (spellings, spellings[::-1], [world.root / "link"], [world.inputs]):
        assert world.run(inputs=inputs) == 0
        assert sum(world.rows().values()) == 29


@pytest.mark.parametrize("sizes", [(10, 7), (7, 10)])
def test_a_store_without_conditional_writes_is_warned_about_and_tidied(world: World, sizes: tuple[int, int]) -> None:
    class Forgetful(FsspecStore):
        def create_once(self, uri: str, content: bytes) -> None:
            self.publish(uri, content)

    tar(world, keys(25))
    assert world.run(chunk_size=sizes[0], store=Forgetful()) == 0
    assert any("ignores conditional writes" in text for text in world.said)
    (world.output / "_chunks" / "chunk-size.json").write_text(
        json.dumps({"chunk_size": sizes[1]})
    )  # it was overwritten
    (world.output / "data").rename(world.output / "before")
    assert world.run(store=Forgetful()) == 0
    for path in (world.output / "before").iterdir():
        path.rename(world.output / "data" / path.name)
    assert world.run(store=Forgetful()) == 0
    assert world.rows() == once(keys(25))


def test_an_empty_record_of_the_chunk_size_is_no_obstacle(world: World) -> None:
    tar(world, keys(25))
    storage.publish(str(world.output / "_chunks" / "chunk-size.json"), b"")
    assert world.run() == 0
    assert world.rows() == once(keys(25))


def test_names_are_long_enough_for_a_million_shards(world: World) -> None:
    tar(world, keys(5))
    assert world.run() == 0
    (stem,) = world.stems()
    match = layout.STEM.fullmatch(stem)
    assert match is not None
    assert {len(match[part]) for part in ("shard", "fingerprint", "configuration", "outcome")} == {16}


def test_an_output_that_is_renamed_goes_on(world: World) -> None:
    members = [(f"{key}.jpg", os.urandom(1000).hex().encode()) for key in keys(200)]
    write_tar(world.inputs / "a.tar.gz", members, compress=True)
    listed: list[Chunk] = []

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        listed.extend(chunks)
        for chunk in chunks:
            do(chunk)

    codes = [world.run(limit=100, chunk_size=50, fails=keys(200), during=during)]
    world.output = world.output.rename(world.root / "moved")
    codes.append(world.run(fails=keys(200), during=during))
    assert codes == [0, 0]
    assert world.rows() == once(keys(200))
    assert all(chunk.gzip_points for chunk in listed)


def test_a_damaged_tar_that_is_retried_with_a_limit(world: World) -> None:
    path = tar(world, keys(10))
    path.write_bytes(path.read_bytes()[: 9 * 1024 + 100])
    assert world.run() == 0
    rows = world.rows()
    world.said.clear()
    assert world.run(retry_errors=True, limit=5) == 0
    assert not [text for text in world.said if "a chunk failed" in text]
    assert world.rows() == rows


def test_a_storage_that_fails_at_the_first_write_is_no_wrong_setting(world: World) -> None:
    tar(world, keys(5))
    first = iter([True])

    def before(operation: str, uri: str) -> None:
        if next(first, False):
            raise OSError(28, "No space left on device")

    assert world.run(store=HookedStore(before=before)) == 1
    assert "No space left on device" in world.said[-1]
    assert world.run() == 0


def test_an_output_that_may_not_be_written_is_a_wrong_setting(world: World) -> None:
    tar(world, keys(5))

    def before(operation: str, uri: str) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(SettingError, match="cannot be written"):
        world.run(store=HookedStore(before=before))


def test_a_failed_chunk_of_a_retry_is_told_by_the_exit_code(world: World) -> None:
    tar(world, keys(25))
    assert world.run(fails={"00003", "00013"}) == 0
    assert world.run(retry_errors=True, during=lambda chunks, do: None) == 1
    assert world.run(retry_errors=True) == 0
    assert world.failed() == set()


def test_one_key_in_two_shards_is_two_seeds_where_images_are_made() -> None:
    class Generating(CopyText):
        seeds_by_shard = True

    shards = [Chunk(name="x", shard_uri=uri, shard_format="tar", start=0, stop=1) for uri in ("/in/a.tar", "/in/b.tar")]
    assert len({seed_of(Generating(), 0, "0001", chunk) for chunk in shards}) == 2
    assert {seed_of(CopyText(), 0, "0001", chunk) for chunk in shards} == {row_seed(0, "0001")}


def test_the_same_command_changes_nothing(world: World) -> None:
    tar(world, keys(25))
    images(world, keys(7, 50))
    assert world.run(fails={"00003"}) == 0
    changes: list[str] = []
    store = HookedStore(before=lambda operation, uri: changes.append(uri))
    assert world.run(store=store) == 0
    assert [uri for uri in changes if "/runs/" not in uri and "/probe-" not in uri] == []
    assert FILES.is_concurrent
