"""Planning: names and ranges of chunks, and which ones are finished or superseded."""

import os
from pathlib import Path

import pytest

from pipelines.dataset import layout
from pipelines.planning.finished import MarkReader
from pipelines.planning.plan import Plan, make_plan
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.samples import Chunk, ChunkName, Columns, chunk_name, version_stem
from pipelines.storage import file_info, files
from tests.support.inputs import samples, write_folder, write_parquet, write_tar
from tests.support.versions import finish, mark

CONFIGURATION = "c" * 16


def plan(inputs: Path, output: Path, chunk_size: int = 10, limit: int | None = None) -> Plan:
    measured = measure(find_shards([str(inputs)]), Columns(), str(output), limit)
    return make_plan(measured, layout.list_output(str(output)), CONFIGURATION, chunk_size)


def ranges(found: Plan) -> list[tuple[int, int]]:
    return [(chunk.start, chunk.stop) for chunk in found.chunks]


def test_names_depend_on_place_content_range_and_configuration_only(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(25))
    first = [chunk.name for chunk in plan(tmp_path / "in", tmp_path / "out1").chunks]
    assert first == [chunk.name for chunk in plan(tmp_path / "in", tmp_path / "out2").chunks]
    name = ChunkName.parse(first[2])
    assert name is not None
    assert (name.start, name.stop, name.configuration) == (20, 25, CONFIGURATION)
    assert chunk_name("a.b c", "s3://x/a", "f" * 16, 0, 64, "c" * 16) == (
        f"a.b_c-{file_info.short_hash('s3://x/a')}-{'f' * 16}-0000000-0000064-{'c' * 16}"
    )


def test_finished_chunks_are_skipped_under_another_chunk_size_and_limit(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(25))
    output = tmp_path / "out"
    trial = plan(tmp_path / "in", output, limit=12)
    assert (ranges(trial), trial.samples) == ([(0, 10), (10, 12)], 12)
    for chunk in trial.chunks:
        finish(output, chunk)
    full = plan(tmp_path / "in", output, chunk_size=8)
    assert (ranges(full), full.samples) == ([(12, 16), (16, 24), (24, 25)], 25)
    assert full.superseded == ()


@pytest.mark.parametrize("form", ["tar", "folder"])
def test_a_limit_below_the_finished_samples_accounts_for_all_of_them(tmp_path: Path, form: str) -> None:
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


def test_a_chunk_knows_where_to_seek_in_its_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(70))
    assert [chunk.seek_position for chunk in plan(tmp_path / "in", tmp_path / "out").chunks] == [0, 0, 0, 0, 32, 32, 32]
    assert all(Chunk.from_json(chunk.to_json()) == chunk for chunk in plan(tmp_path / "in", tmp_path / "out").chunks)


def test_the_tar_index_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(5))
    before = plan(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr("pipelines.readers.tar.index_tar", None)
    assert plan(tmp_path / "in", tmp_path / "out") == before


def test_a_changed_shard_is_processed_again_and_its_old_files_are_superseded(tmp_path: Path) -> None:
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
    (old,) = again.superseded
    assert [uri.split("/")[-2] for uri in (*old.marks, *old.files)] == ["done", "data"]
    assert not plan(other, output).superseded  # the input of another run is left alone


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
    (old,) = found.superseded
    assert (len(old.marks), len(old.files)) == (1, 1)
    assert found.samples == 7  # the row of the file that is gone exists, and is counted


def test_remains_of_a_killed_run_are_superseded_when_their_samples_are_finished(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(8))
    output = tmp_path / "out"
    killed = plan(tmp_path / "in", output, chunk_size=4).chunks[0]
    left = layout.data_uri(str(output), version_stem(killed.name, 4, []))
    files.publish(left, b"rows of a run killed before the mark")
    (removal,) = plan(tmp_path / "in", output, chunk_size=8).superseded
    assert (removal.marks, removal.files) == ((), (left,))
    assert removal.mark_uri == layout.mark_uri(str(output), os.path.basename(left).removesuffix(".parquet"))


def test_a_mark_without_its_files_does_not_count(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(8))
    output = tmp_path / "out"
    first, second = plan(tmp_path / "in", output, chunk_size=4).chunks
    finish(output, first, failed=[1])
    mark(output, version_stem(second.name, 4, []), second)
    found = plan(tmp_path / "in", output, chunk_size=4)
    assert ranges(found) == [(4, 8)]
    (output / "errors").rename(output / "elsewhere")
    assert ranges(plan(tmp_path / "in", output, chunk_size=4)) == [(0, 4), (4, 8)]


@pytest.mark.parametrize("ok", [3, 5])
def test_a_mark_counts_only_when_it_accounts_for_its_whole_range(ok: int, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(4))
    output = tmp_path / "out"
    (chunk,) = plan(tmp_path / "in", output).chunks
    stem = version_stem(chunk.name, ok, [])
    files.publish(layout.data_uri(str(output), stem), b"rows")
    mark(output, stem, chunk)
    assert ranges(plan(tmp_path / "in", output)) == [(0, 4)]


def test_a_disjoint_set_of_overlapping_chunks_counts(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(10))
    output = tmp_path / "out"
    (whole,) = plan(tmp_path / "in", output, chunk_size=10).chunks
    for start, stop in [(0, 5), (5, 10), (2, 7), (5, 7)]:
        name = whole.name.replace("0000000-0000010", f"{start:07d}-{stop:07d}")
        finish(output, Chunk(name=name, shard_uri=whole.shard_uri, shard_format="tar", start=start, stop=stop))
    found = plan(tmp_path / "in", output)
    assert [(each.name.start, each.name.stop) for each in found.finished] == [(0, 5), (5, 10)]
    assert len(found.superseded) == 2 and found.chunks == () and found.samples == 10


def test_the_outcome_of_a_chunk_with_the_fewest_failures_counts(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(4))
    output = tmp_path / "out"
    (chunk,) = plan(tmp_path / "in", output).chunks
    for failed in ([1, 2], [3], [0]):
        finish(output, chunk, failed)
    found = plan(tmp_path / "in", output)
    assert [each.bad for each in found.finished] == [1]
    assert len(found.superseded) == 2
    assert all(len(removal.marks) == 1 and len(removal.files) == 2 for removal in found.superseded)


def test_a_shard_that_has_become_empty_loses_its_rows(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "in" / "a.tar", samples(5))
    write_tar(tmp_path / "in" / "b.tar", samples(3))
    for chunk in plan(tmp_path / "in", tmp_path / "out").chunks:
        finish(tmp_path / "out", chunk)
    write_tar(tar, [])
    found = plan(tmp_path / "in", tmp_path / "out")
    assert (found.chunks, found.samples, len(found.superseded)) == ((), 3, 1)


def test_a_limit_that_leaves_out_a_shard_does_not_empty_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(5))
    write_tar(tmp_path / "in" / "b.tar", samples(3))
    for chunk in plan(tmp_path / "in", tmp_path / "out").chunks:
        finish(tmp_path / "out", chunk)
    assert plan(tmp_path / "in", tmp_path / "out", limit=2).superseded == ()


def test_one_of_two_folder_chunks_that_share_a_file_counts(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(4)})
    (before,) = plan(folder, tmp_path / "out").chunks
    write_folder(folder, {"00.jpg": b"x"})
    (after,) = plan(folder, tmp_path / "out").chunks
    for chunk in (before, after):
        finish(tmp_path / "out", chunk)
    found = plan(folder, tmp_path / "out")
    assert (len(found.finished), found.samples, found.chunks, len(found.superseded)) == (1, 5, (), 1)


def test_a_changed_file_that_is_deleted_before_its_chunk_is_finished_leaves_no_duplicate(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(4)})
    finish(tmp_path / "out", plan(folder, tmp_path / "out").chunks[0])
    (folder / "1.jpg").write_bytes(b"changed")
    finish(tmp_path / "out", plan(folder, tmp_path / "out").chunks[0])
    (folder / "1.jpg").unlink()
    found = plan(folder, tmp_path / "out")
    assert (found.chunks, len(found.finished), len(found.superseded)) == ((), 1, 1)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"files": [1]}', b'{"files": {"a"'])
def test_a_folder_chunk_with_a_damaged_mark_is_processed_again(content: bytes, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(4)})
    stem = finish(tmp_path / "out", plan(folder, tmp_path / "out").chunks[0])
    Path(layout.mark_uri(str(tmp_path / "out"), stem)).write_bytes(content)
    found = plan(folder, tmp_path / "out")
    assert (len(found.chunks), found.finished) == (1, ())


def test_a_retry_is_built_on_the_published_files(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(8))
    output = tmp_path / "out"
    for chunk in plan(tmp_path / "in", output, chunk_size=4).chunks:
        finish(output, chunk, failed=[5, 6] if chunk.start else [])
    measured = measure(find_shards([str(tmp_path / "in")]), Columns(), str(output))
    listing = layout.list_output(str(output))
    again = make_plan(measured, listing, CONFIGURATION, 4, MarkReader(), lambda version: [5, 6])
    (chunk,) = again.chunks
    assert (chunk.start, chunk.stop, chunk.only) == (4, 8, (5, 6))
    assert {chunk.base_data, chunk.base_errors} == {*again.finished[1].files}
    assert len(again.finished) == 2 and again.superseded == ()


def test_a_limit_keeps_the_damage_of_a_shard_that_is_retried(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "in" / "a.tar", samples(8))
    tar.write_bytes(tar.read_bytes()[: 7 * 1536 + 100])
    output = tmp_path / "out"
    (chunk,) = plan(tmp_path / "in", output).chunks
    assert chunk.damage
    finish(output, chunk, failed=[chunk.damage_position])
    measured = measure(find_shards([str(tmp_path / "in")]), Columns(), str(output), 3)
    failed = [chunk.damage_position]
    listing = layout.list_output(str(output))
    (again,) = make_plan(measured, listing, CONFIGURATION, 10, None, lambda version: failed).chunks
    assert (again.damage, again.damage_position) == (chunk.damage, chunk.damage_position)


def test_a_limited_plan_keeps_what_may_be_the_work_of_another_run(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(8)})
    output = tmp_path / "out"
    first, second = plan(folder, output, chunk_size=4).chunks
    finish(output, first)
    files.publish(layout.data_uri(str(output), version_stem(second.name, 4, [])), b"without its mark yet")
    assert plan(folder, output, chunk_size=4, limit=3).superseded == ()
    assert plan(folder, output, chunk_size=4).superseded != ()


def test_a_limited_plan_supersedes_what_is_certainly_useless(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(8)})
    output = tmp_path / "out"
    (part,) = plan(folder, output, limit=2).chunks
    first, _ = plan(folder, output, chunk_size=4).chunks
    finish(output, first)
    mark(output, version_stem(part.name, 2, []), part)  # its data was removed by another run
    files.publish(layout.data_uri(str(output), version_stem(first.name, 3, [0])), b"another outcome")
    found = plan(folder, output, chunk_size=4, limit=3)
    assert (found.chunks, len(found.finished), len(found.superseded)) == ((), 1, 2)


def test_a_mark_that_was_missing_for_a_moment_is_read_again(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(4)})
    (chunk,) = plan(folder, tmp_path / "out").chunks
    path = Path(layout.mark_uri(str(tmp_path / "out"), finish(tmp_path / "out", chunk)))
    (version,) = layout.list_output(str(tmp_path / "out")).finished
    marks, content = MarkReader(), path.read_bytes()
    path.unlink()
    assert marks.folder_versions([version]) == []
    path.write_bytes(content)
    assert len(marks.folder_versions([version])) == 1
