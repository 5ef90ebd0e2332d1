"""Every sample exactly once, whatever users and storage do: changed inputs, deleted files, failed writes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipelines.dataset import layout
from pipelines.errors import SettingError
from pipelines.runs.status import read_status
from pipelines.samples import STEM, Chunk, version_stem
from pipelines.stages.task import row_seed, seed_of
from pipelines.storage import file_info
from pipelines.storage import files as files_module
from pipelines.storage.store import FsspecStore
from tests.simulation.job import CopyText
from tests.support.in_process import (
    Do,
    HookedStore,
    KilledError,
    World,
    files,
    images,
    keys,
    once,
    tar,
)
from tests.support.inputs import write_parquet, write_tar
from tests.support.paths import PROJECT_ROOT


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("moment", ["write", "fsync"])
def test_a_writer_that_is_killed_leaves_nothing_that_is_read(world: World, moment: str) -> None:
    tar(world, keys(25))

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        stem = version_stem(chunks[0].name, 10, [])
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
    assert files_module.list_uris(str(world.output / "data")) == sorted(
        map(str, (world.output / "data").glob("*.parquet"))
    )
    assert len(read_status(str(world.output)).runs) == 2


def killed_while_publishing(uri: str, moment: str) -> None:
    """Kill a process with SIGKILL while it publishes, when its file is open or at its fsync."""
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
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


def test_an_output_below_the_input_through_a_link_is_no_input(world: World) -> None:
    tar(world, keys(25))
    (world.root / "scratch").symlink_to(world.inputs)
    world.output = world.root / "scratch" / "out"
    for _ in range(3):
        assert world.run() == 0
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
    with pytest.raises(SettingError, match="no samples"):
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
def test_a_store_without_conditional_writes_is_reported_and_cleaned_up(world: World, sizes: tuple[int, int]) -> None:
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
    files_module.publish(str(world.output / "_chunks" / "chunk-size.json"), b"")
    assert world.run() == 0
    assert world.rows() == once(keys(25))


def test_names_are_long_enough_for_a_million_shards(world: World) -> None:
    tar(world, keys(5))
    assert world.run() == 0
    (stem,) = world.stems()
    match = STEM.fullmatch(stem)
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
    assert codes == [3, 3], "all is done, and nothing succeeded"
    assert world.rows() == once(keys(200))
    assert all(chunk.gzip_index_uri for chunk in listed)


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


def test_one_key_in_two_shards_is_two_seeds_where_images_are_made() -> None:
    class Generating(CopyText):
        seeds_by_shard = True

    shards = [Chunk(name="x", shard_uri=uri, shard_format="tar", start=0, stop=1) for uri in ("/in/a.tar", "/in/b.tar")]
    assert len({seed_of(Generating(), 0, "0001", chunk) for chunk in shards}) == 2
    assert {seed_of(CopyText(), 0, "0001", chunk) for chunk in shards} == {row_seed(0, "0001")}


@pytest.mark.parametrize(("number", "is_setting"), [(5, False), (13, True)])
def test_a_storage_that_fails_while_the_input_is_listed(world: World, number: int, is_setting: bool) -> None:
    class Failing(FsspecStore):
        def iter_files(self, root: str) -> Iterator[file_info.FileInfo]:
            if root == str(world.inputs):
                raise OSError(number, os.strerror(number))
            return super().iter_files(root)

    tar(world, keys(5))
    if is_setting:
        with pytest.raises(SettingError, match="cannot be read"):
            world.run(store=Failing())
    else:
        assert world.run(store=Failing()) == 1
    assert world.run() == 0
