"""The shards that URIs, globs, braces and folders stand for."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.readers.patterns import expand_braces
from pipelines.readers.shard_index import Shard
from pipelines.readers.shards import find_shards
from tests.support.inputs import encoded_image, samples, write_folder, write_tar


def test_braces() -> None:
    assert expand_braces("s3://b/{08..11}.tar") == [f"s3://b/{name}.tar" for name in ("08", "09", "10", "11")]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    assert expand_braces("{0..10}")[-2:] == ["9", "10"]
    assert expand_braces("{10..8}") == ["10", "9", "8"]
    assert expand_braces("{2..00}") == ["02", "01", "00"]
    assert expand_braces("plain") == ["plain"]


def test_folder_of_shards_and_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", samples(1))
    write_tar(tmp_path / "sub" / "a.tgz", samples(1), compress=True)
    write_folder(tmp_path, {"x.JPG": encoded_image(), "x.txt": b"caption", "_skipped/y.jpg": b"", "notes.md": b""})
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


def test_a_glob_of_images_is_one_folder(tmp_path: Path) -> None:
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
    """img2dataset writes a tar, its metadata as Parquet, and its statistics as JSON."""
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


def files_of(shards: list[Shard], root: Path) -> dict[str, list[str]]:
    """Return shard -> its loose files, relative to `root`."""
    return {
        shard.uri.removeprefix(str(root)): [file.uri.removeprefix(str(root)) for file in shard.files]
        for shard in shards
    }


def overlapping(tmp_path: Path) -> Path:
    """Write a folder with a tar and images, a link to it, and links to its files elsewhere."""
    write_tar(tmp_path / "in" / "a.tar", samples(1))
    write_folder(tmp_path / "in", {"x.jpg": b"1", "x.txt": b"one", "sub/y.jpg": b"2", "sub/_hidden/z.jpg": b"3"})
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.tar").symlink_to("../in/a.tar")
    return tmp_path


@pytest.mark.parametrize(
    "others",
    [
        ["{0}/in/sub"],
        ["{0}/in/sub/*.jpg", "{0}/in/*"],
        ["{0}/link"],
        ["{0}/link/sub"],
        ["/{0}/in"],
        ["{0}/in/./sub/.."],
        ["in"],
        ["file://{0}/in"],
        ["{0}/links"],
        ["{0}/links/b.tar", "{0}/links/*.tar", "{0}/in/{{a,a}}.tar"],
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_one_file_named_in_two_ways_is_one_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str], is_first: bool
) -> None:
    overlapping(tmp_path)
    monkeypatch.chdir(tmp_path)
    inputs = [other.format(tmp_path) for other in others]
    inputs = [str(tmp_path / "in"), *inputs] if is_first else [*inputs, str(tmp_path / "in")]
    assert files_of(find_shards(inputs), tmp_path) == {
        "/in/a.tar": [],
        "/in": ["/in/sub/y.jpg", "/in/x.jpg", "/in/x.txt"],
    }


def test_a_shard_is_the_same_one_in_every_command(tmp_path: Path) -> None:
    overlapping(tmp_path)
    texts = [f"{tmp_path}/{name}" for name in ("in/a.tar", "link/a.tar", "links", "links/*.tar", "link/*.tar")]
    found = [find_shards([text]) for text in (*texts, f"/{texts[0]}")]
    assert {(shard.uri, shard.fingerprint) for (shard,) in found} == {(f"{tmp_path}/in/a.tar", found[0][0].fingerprint)}
    former = [shard.former_uri.removeprefix(str(tmp_path)) for (shard,) in found]
    assert former == ["", "/link/a.tar", "/links/b.tar", "/links/b.tar", "/link/a.tar", f"/{tmp_path}/in/a.tar"]


def test_a_folder_is_the_same_one_by_a_link(tmp_path: Path) -> None:
    overlapping(tmp_path)
    direct, linked = ([s for s in find_shards([f"{tmp_path}/{n}"]) if s.format == "folder"][0] for n in ("in", "link"))
    assert (direct.uri, direct.fingerprint, direct.files) == (linked.uri, linked.fingerprint, linked.files)
    assert (direct.former_uri, linked.former_uri) == ("", f"{tmp_path}/link")


def test_images_that_are_named_although_hidden_belong_to_the_outer_folder_too(tmp_path: Path) -> None:
    overlapping(tmp_path)
    found = find_shards([f"{tmp_path}/in/sub/_hidden", f"{tmp_path}/in/sub"])
    assert files_of(found, tmp_path) == {"/in/sub": ["/in/sub/_hidden/z.jpg", "/in/sub/y.jpg"]}


def test_a_link_to_an_image_is_an_image_of_its_own(tmp_path: Path) -> None:
    """A folder of links is a selection with names and captions of its own."""
    write_folder(tmp_path / "all", {"1.jpg": b"1", "2.jpg": b"2"})
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "first.jpg").symlink_to("../all/1.jpg")
    found = find_shards([str(tmp_path / "all"), str(tmp_path / "few")])
    assert files_of(found, tmp_path) == {"/all": ["/all/1.jpg", "/all/2.jpg"], "/few": ["/few/first.jpg"]}


def test_folders_linked_into_two_inputs_are_read_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", {"x.jpg": b"1"})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").symlink_to("../real")
    for inputs in (["a", "b"], ["b", "a"]):
        found = find_shards([str(tmp_path / name) for name in inputs])
        assert files_of(found, tmp_path) == {"/a": ["/a/part/x.jpg"]}


def test_names_in_the_cache_of_hugging_face_count(tmp_path: Path) -> None:
    write_folder(tmp_path, {"blobs/0123abcd": b"1", "blobs/4567abcd": b"2"})
    (tmp_path / "snapshot").mkdir()
    for name, blob in (("train-0.parquet", "0123abcd"), ("train-1.parquet", "4567abcd")):
        (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{blob}")
    for text in ("snapshot", "snapshot/*.parquet"):
        found = find_shards([f"{tmp_path}/{text}"])
        assert [(s.uri.removeprefix(f"{tmp_path}"), s.format, s.size_bytes) for s in found] == [
            ("/snapshot/train-0.parquet", "parquet", 1),
            ("/snapshot/train-1.parquet", "parquet", 1),
        ]


@pytest.mark.parametrize("output", ["in/out", "link/out", "elsewhere"])
def test_an_output_below_the_input_is_never_read_whatever_way_leads_there(tmp_path: Path, output: str) -> None:
    overlapping(tmp_path)
    write_folder(tmp_path / "in" / "out", {"data/x.parquet": b"1", "preview.png": b"2"})
    (tmp_path / "elsewhere").symlink_to("in/out")
    (tmp_path / "in" / "deep").symlink_to("out")
    (tmp_path / "in" / "file.parquet").symlink_to("out/data/x.parquet")
    inputs = [str(tmp_path / "in"), f"{tmp_path}/link/*", f"{tmp_path}/in/**/*.tar"]
    found = find_shards(inputs, exclude=str(tmp_path / output))
    assert set(files_of(found, tmp_path)) == {"/in/a.tar", "/in"}
    assert [file.uri for shard in found for file in shard.files if "preview" in file.uri] == []
    with pytest.raises(SettingError, match="holds nothing to read"):
        find_shards([f"{tmp_path}/in/out/data/x.parquet"], exclude=str(tmp_path / output))


def test_a_bucket_by_two_schemes_is_one(tmp_path: Path) -> None:
    uri = f"memory://two-{tmp_path.name}"
    storage.publish(f"{uri}/a.tar", b"x")
    storage.publish(f"{uri}/out/data/a.parquet", b"x")
    found = find_shards([uri, f"{uri.replace('memory', 'MEMORY')}/a.tar"], exclude=f"{uri}/out/")
    assert [shard.uri for shard in found] == [f"{uri}/a.tar"]
