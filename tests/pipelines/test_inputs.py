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


@pytest.mark.parametrize("name", ["absent", "absent/*.tar", "x.tar.zst", "empty"])
def test_nothing_there_is_a_setting_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.tar.zst").write_bytes(b"x")
    with pytest.raises(SettingError, match="--input"):
        find_shards([f"{tmp_path}/{name}"])
