"""Inputs: what URIs, globs, braces and folders mean."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.inputs import expand_braces, find_shards
from tests.inputs import picture, samples, write_folder, write_tar


def test_braces() -> None:
    assert expand_braces("s3://b/{08..11}.tar") == [f"s3://b/{name}.tar" for name in ("08", "09", "10", "11")]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    assert expand_braces("{0..10}")[-2:] == ["9", "10"]
    assert expand_braces("{10..8}") == ["10", "9", "8"]
    assert expand_braces("{2..00}") == ["02", "01", "00"]
    assert expand_braces("plain") == ["plain"]


def test_folder_of_shards_and_pictures(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", samples(1))
    write_tar(tmp_path / "sub" / "a.tgz", samples(1), compress=True)
    write_folder(tmp_path, {"x.JPG": picture(), "x.txt": b"caption", "_skipped/y.jpg": b"", "notes.md": b""})
    found = {shard.uri.removeprefix(f"{tmp_path}"): shard for shard in find_shards([str(tmp_path)])}
    assert {uri: shard.format for uri, shard in found.items()} == {
        "/b.tar": "tar",
        "/sub/a.tgz": "tar.gz",
        "": "folder",
    }
    assert [file.uri.rsplit("/", 1)[-1] for file in found[""].files] == ["x.JPG", "x.txt"]


def test_overlapping_globs_name_a_shard_once(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", samples(1))
    write_tar(tmp_path / "1.tar", samples(1))
    found = find_shards([f"{tmp_path}/*.tar", f"{tmp_path}/{{0..1}}.tar", str(tmp_path)])
    assert [shard.stem for shard in found] == ["0", "1"]


def test_a_glob_of_pictures_is_one_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"1", "b.jpg": b"2", "c.png": b"3"})
    (shard,) = find_shards([f"{tmp_path}/*.jpg"])
    assert (shard.uri, len(shard.files)) == (str(tmp_path), 2)


def test_the_output_inside_an_input_is_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"1", "out/preview.png": b"2", "out/data/x.parquet": b"3"})
    (shard,) = find_shards([str(tmp_path)], exclude=f"{tmp_path}/out")
    assert [file.uri for file in shard.files] == [f"{tmp_path}/a.jpg"]


def test_an_output_of_ours_is_read_by_its_data(tmp_path: Path) -> None:
    names = ("data/a.parquet", "errors/a.parquet", "_chunks/done/a", "preview.png")
    write_folder(tmp_path, {name: b"x" for name in names})
    assert [shard.uri for shard in find_shards([str(tmp_path)])] == [f"{tmp_path}/data/a.parquet"]


def test_memory_file_system() -> None:
    storage.publish("memory://inputs/deep/a.tar", b"x")
    assert [shard.uri for shard in find_shards(["memory://inputs"])] == ["memory://inputs/deep/a.tar"]
    assert [shard.uri for shard in find_shards(["memory://inputs/*/*.tar"])] == ["memory://inputs/deep/a.tar"]


def test_lists_beside_what_they_describe_are_left_out(tmp_path: Path) -> None:
    """What img2dataset writes: the tar, its metadata as Parquet, its statistics as JSON."""
    write_tar(tmp_path / "00000.tar", samples(1))
    write_folder(tmp_path, {"00000.parquet": b"x", "00000_stats.json": b"x", "metadata.jsonl": b"x"})
    for text in (str(tmp_path), f"{tmp_path}/*"):
        assert [shard.uri for shard in find_shards([text])] == [f"{tmp_path}/00000.tar"]
    named = find_shards([f"{tmp_path}/*.parquet", f"{tmp_path}/metadata.jsonl"])
    assert [shard.format for shard in named] == ["parquet", "jsonl"]


def test_a_folder_of_json_lines(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/x.jsonl": b"{}", "a/y.ndjson": b"{}"})
    assert [shard.format for shard in find_shards([str(tmp_path)])] == ["jsonl", "jsonl"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{000..002}.tar", ["000", "001", "002"]),
        ("0*.tar", ["000", "001", "002"]),
        ("**/0*.tar", ["000", "001", "002", "010", "011"]),
        ("sub/{011,010}.tar", ["011", "010"]),
        ("{.,sub}/0?[01].tar", ["000", "001", "010", "011"]),
        ("odd[1].tar", ["odd[1]"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("000", "001", "002", "sub/010", "sub/011", "odd[1]"):
        write_tar(tmp_path / f"{name}.tar", samples(1))
    assert [shard.stem for shard in find_shards([f"{tmp_path}/{pattern}"])] == expected


def test_a_missing_member_of_a_range_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "000.tar", samples(1))
    with pytest.raises(SettingError, match=r"there is nothing at .*/001\.tar"):
        find_shards([f"{tmp_path}/{{000..001}}.tar"])


@pytest.mark.parametrize("name", ["absent", "absent/*.tar", "x.tar.zst", "empty"])
def test_nothing_there_is_a_setting_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.tar.zst").write_bytes(b"x")
    with pytest.raises(SettingError, match="--input"):
        find_shards([f"{tmp_path}/{name}"])
