"""Planning: names, ranges, what is finished, what is superseded."""

import json
import os
from pathlib import Path

import pytest

from pipelines import layout, storage
from pipelines.errors import SettingError
from pipelines.inputs import find_shards
from pipelines.plan import Plan, check_configuration, gaps, make_plan, measure
from pipelines.samples import Chunk, Columns
from tests.inputs import samples, write_folder, write_parquet, write_tar

CONFIGURATION = "c" * 10


def plan(inputs: Path, output: Path, chunk_size: int = 10, limit: int | None = None) -> Plan:
    measured = measure(find_shards([str(inputs)]), Columns(), str(output), limit)
    return make_plan(measured, layout.published(str(output)), CONFIGURATION, chunk_size)


def finish(output: Path, chunk: Chunk) -> None:
    mark = {"files": {file.uri: file.fingerprint for file in chunk.files}}
    storage.publish(layout.data_uri(str(output), chunk.name), b"rows")
    storage.publish(layout.mark_uri(str(output), chunk.name, len(chunk.positions), 0), json.dumps(mark).encode())


def ranges(found: Plan) -> list[tuple[int, int]]:
    return [(chunk.start, chunk.stop) for chunk in found.chunks]


def test_gaps() -> None:
    assert list(gaps(0, 10, [])) == [(0, 10)]
    assert list(gaps(0, 10, [(2, 4), (0, 1), (8, 20)])) == [(1, 2), (4, 8)]
    assert list(gaps(0, 10, [(0, 10)])) == []
    assert list(gaps(0, 10, [(12, 14)])) == [(0, 10)]


def test_names_depend_on_place_content_range_and_configuration_only(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(25))
    first = [chunk.name for chunk in plan(tmp_path / "in", tmp_path / "out1").chunks]
    assert first == [chunk.name for chunk in plan(tmp_path / "in", tmp_path / "out2").chunks]
    name = layout.ChunkName.parse(first[2])
    assert name is not None
    assert (name.start, name.stop, name.configuration) == (20, 25, CONFIGURATION)
    assert layout.chunk_name("a.b c", "s3://x/a", "f" * 10, 0, 64, "c" * 10) == (
        "a.b_c-1e5c8be00b-ffffffffff-0000000-0000064-cccccccccc"
    )


def test_finished_chunks_are_skipped_under_another_chunk_size_and_limit(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(25))
    output = tmp_path / "out"
    trial = plan(tmp_path / "in", output, limit=12)
    assert (ranges(trial), trial.samples) == ([(0, 10), (10, 12)], 12)
    for chunk in trial.chunks:
        finish(output, chunk)
    full = plan(tmp_path / "in", output, chunk_size=8)
    assert (ranges(full), full.samples) == ([(12, 20), (20, 25)], 25)
    assert full.superseded == ()


@pytest.mark.parametrize("form", ["tar", "folder"])
def test_a_limit_below_what_is_done_accounts_for_all_that_is_done(tmp_path: Path, form: str) -> None:
    inputs, output = tmp_path / "in", tmp_path / "out"
    if form == "tar":
        write_tar(inputs / "a.tar", samples(25))
    else:
        write_folder(inputs, {f"{number:02}.jpg": b"x" for number in range(25)})
    for chunk in plan(inputs, output, limit=20).chunks:
        finish(output, chunk)
    less = plan(inputs, output, limit=5)
    assert (less.chunks, less.superseded, less.samples) == ((), (), 20)
    assert sum(mark.ok for mark in less.finished) == less.samples
    more = plan(inputs, output, limit=23)
    assert (sum(len(chunk.positions) for chunk in more.chunks), more.samples) == (3, 23)


def test_a_file_that_left_its_folder_stays_accounted_for(tmp_path: Path) -> None:
    inputs, output = tmp_path / "in", tmp_path / "out"
    write_folder(inputs, {f"{number}.jpg": b"x" for number in range(4)})
    for chunk in plan(inputs, output).chunks:
        finish(output, chunk)
    (inputs / "0.jpg").unlink()
    later = plan(inputs, output)
    assert (later.chunks, later.samples, sum(mark.ok for mark in later.finished)) == ((), 4, 4)


def test_a_chunk_knows_where_to_enter_its_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(70))
    assert [chunk.seek_position for chunk in plan(tmp_path / "in", tmp_path / "out").chunks] == [0, 0, 0, 0, 32, 32, 32]
    assert all(Chunk.from_json(chunk.to_json()) == chunk for chunk in plan(tmp_path / "in", tmp_path / "out").chunks)


def test_the_tar_index_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(5))
    before = plan(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr("pipelines.tar_shards.index_tar", None)
    assert plan(tmp_path / "in", tmp_path / "out") == before


def test_a_changed_shard_is_done_again_and_its_old_files_go(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "in" / "a.tar", samples(5))
    other = write_parquet(tmp_path / "in" / "b.parquet", {"image": [b"x"] * 3})
    output = tmp_path / "out"
    for chunk in plan(tmp_path / "in", output).chunks:
        finish(output, chunk)
    assert plan(tmp_path / "in", output).chunks == ()
    write_tar(tar, samples(6))
    again = plan(tmp_path / "in", output)
    assert [chunk.shard_uri for chunk in again.chunks] == [str(tar)]
    assert len(again.finished) == 1
    assert [uri.split("/")[-2] for uri in again.superseded] == ["data", "done"]
    assert not plan(other, output).superseded  # another run's input is not this run's business


def test_new_and_changed_files_of_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(6)})
    output = tmp_path / "out"
    for chunk in plan(folder, output, chunk_size=3).chunks:
        finish(output, chunk)
    assert plan(folder, output, chunk_size=3).chunks == ()
    write_folder(folder, {"00.jpg": b"new"})
    (chunk,) = plan(folder, output, chunk_size=3).chunks
    assert [file.uri for file in chunk.files] == [f"{folder}/00.jpg"]
    finish(output, chunk)
    (folder / "4.jpg").write_bytes(b"changed")
    (folder / "1.jpg").unlink()
    found = plan(folder, output, chunk_size=9)
    assert [os.path.basename(file.uri) for file in found.chunks[0].files] == ["3.jpg", "4.jpg", "5.jpg"]
    assert len(found.superseded) == 2
    assert found.samples == 7  # the row of the file that has gone is there, and counted


def test_an_unfinished_chunk_of_another_size_leaves_no_doubles(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(8))
    output = tmp_path / "out"
    killed = plan(tmp_path / "in", output, chunk_size=4).chunks[0]
    storage.publish(layout.data_uri(str(output), killed.name), b"rows of a run killed before the mark")
    assert plan(tmp_path / "in", output, chunk_size=4).superseded == ()
    assert plan(tmp_path / "in", output, chunk_size=8).superseded == (layout.data_uri(str(output), killed.name),)


def test_two_configurations_do_not_mix(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    output = str(tmp_path / "out")
    for chunk in plan(tmp_path / "in", tmp_path / "out").chunks:
        finish(tmp_path / "out", chunk)
    storage.publish(layout.configuration_uri(output, CONFIGURATION), b'{"steps": 10}')
    check_configuration(layout.published(output), output, CONFIGURATION, {"steps": 10})
    with pytest.raises(SettingError, match="steps was 10 and is now 20"):
        check_configuration(layout.published(output), output, "d" * 10, {"steps": 20})


def test_configuration_hash() -> None:
    settings = {"steps": 10, "seed": 0, "model": "mini"}
    assert layout.configuration_hash(settings) == layout.configuration_hash(dict(reversed(settings.items())))
    assert len({layout.configuration_hash({**settings, "steps": steps}) for steps in (10, 11)}) == 2
