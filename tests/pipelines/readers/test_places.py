"""What is left out of an input and reported, and names that look like patterns or expressions."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.dataset.layout import check_output
from pipelines.errors import SettingError
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.references import fetch
from pipelines.readers.shard_index import Shard
from pipelines.readers.shards import find_shards
from pipelines.runs.status import read_status
from pipelines.samples import chunk_name, version_stem
from pipelines.storage import uris as uris_module
from tests.support.in_process import World, files, images, keys, once
from tests.support.inputs import samples, write_folder, write_parquet, write_tar

NAME = chunk_name("a", "/x/a.tar", "f" * 16, 0, 10, "c" * 16)
STEM = version_stem(NAME, 9, [3])
OLD_NAME = f"a-{'a' * 10}-{'b' * 10}-0000000-0000010-{'c' * 10}"
OUTPUTS = {
    "of today": (
        f"data/{STEM}.parquet", f"errors/{STEM}.parquet", f"_chunks/done/{STEM}", "_chunks/configuration.json",
        "_chunks/runs/r.json", "README.md", "preview.png", "report.html",
    ),
    "of version 0.1": (
        f"data/{OLD_NAME}.parquet", f"_chunks/done/{OLD_NAME}.ok9.bad1", f"_chunks/configuration-{'c' * 10}.json",
        "README.md", "preview.png",
    ),
    "of webdataset tars": (f"data/{STEM}.tar", f"_chunks/done/{STEM}", "preview.png"),
    "without its records": (f"data/{STEM}.parquet", f"errors/{STEM}.parquet", "README.md"),
}  # fmt: skip


def found(*inputs: object, exclude: Path | str | None = None) -> tuple[list[str], str]:
    """Return (URIs of shards and of the images of folders, the line about what is left out)."""
    told: list[str] = []
    shards = find_shards([str(each) for each in inputs], None if exclude is None else str(exclude), tell=told.append)
    assert len(told) <= 1
    return [uri for shard in shards for uri in uris(shard)], "".join(told)


def uris(shard: Shard) -> list[str]:
    return [file.uri for file in shard.files] or [shard.uri]


def output_at(root: Path, kind: str = "of today") -> Path:
    write_folder(root, dict.fromkeys(OUTPUTS[kind], b"x"))
    return root


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("place", ["depth", "deep/er/depth"])
def test_outputs_below_an_input_are_left_out(tmp_path: Path, kind: str, place: str) -> None:
    write_folder(tmp_path, {"a.jpg": b"1", "deep/b.jpg": b"2"})
    output = output_at(tmp_path / place, kind)
    for text in (tmp_path, f"{tmp_path}/**/*"):
        if kind == "without its records" and "*" in str(text):
            continue
        uris, line = found(text)
        assert uris == [f"{tmp_path}/a.jpg", f"{tmp_path}/deep/b.jpg"], text
        assert f"outputs of earlier runs: 1 ({output}" in line and "--input" in line


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_that_is_named_is_read(tmp_path: Path, kind: str) -> None:
    output = output_at(tmp_path / "depth", kind)
    (data,) = [name for name in OUTPUTS[kind] if name.startswith("data/")]
    for text in (output, output / "data", f"{output}/data/*", f"{tmp_path}/dep*/data/*", f"{tmp_path}/dep*"):
        assert found(text) == ([f"{output}/{data}"], ""), text
    with pytest.raises(SettingError, match=r"outputs of earlier runs: 1 \(.*; to read one, give it alone as --input"):
        found(tmp_path)


def test_a_pattern_of_the_shell_names_the_output_too(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"1", "b.jpg": b"2"})
    output = output_at(tmp_path / "depth")
    uris, line = found(*sorted(tmp_path.iterdir()))
    assert uris == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"] and "outputs of earlier runs: 1" in line
    assert len(found(tmp_path / "a.jpg", output / "data")[0]) == 2, "named on purpose"


def test_rendered_scenes_are_an_input(tmp_path: Path) -> None:
    write_folder(tmp_path / "scenes", {"_scenes/seed-1.json": b"{}", "README.md": b"x"})
    write_tar(tmp_path / "scenes" / "scenes-s1-8x8-00000000-00000002.tar", samples(2))
    uris, line = found(tmp_path)
    assert len(uris) == 1 and "outputs" not in line and "hidden" not in line


def test_an_output_inside_an_output_and_files_beside_its_data(tmp_path: Path) -> None:
    output = output_at(tmp_path / "depth")
    output_at(output / "data" / "again")
    write_folder(output, {"holiday.jpg": b"1"})
    uris, line = found(output)
    assert uris == [f"{output}/data/{STEM}.parquet"]
    assert "files beside the data/ of an output: 1 (holiday.jpg)" in line and "outputs of earlier runs: 1" in line


@pytest.mark.parametrize("text", ["{0}", "{0}/", "{0}/sub", "{0}/sub/*.jpg", "{0}/sub/a.jpg", "{0}/../link/sub"])
def test_an_input_in_the_output_is_refused_in_words(tmp_path: Path, text: str) -> None:
    inner = tmp_path / "photos"
    write_folder(inner, {"a.jpg": b"1", "sub/a.jpg": b"1"})
    (tmp_path / "link").symlink_to("photos")
    for find in (find_shards, lambda inputs, output: PromptFiles().find(inputs, output)):
        with pytest.raises(SettingError, match="is --output itself|lies inside --output") as caught:
            find([text.format(inner)], str(inner))
        assert "--output" in str(caught.value)


def test_the_own_output_below_the_input_is_no_news(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"1"})
    output = output_at(tmp_path / "depth")
    assert found(tmp_path, exclude=output) == ([f"{tmp_path}/a.jpg"], "")


def test_prompts_pass_over_outputs(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.txt": b"a boat"})
    output = output_at(tmp_path / "in" / "pairs")
    told: list[str] = []
    (shard,) = PromptFiles().find([str(tmp_path / "in")], str(tmp_path / "out"), told.append)
    assert shard.uri.endswith("a.txt") and f"outputs of earlier runs: 1 ({output}" in told[0]
    (shard,) = PromptFiles().find([str(output)], str(tmp_path / "out"))
    assert shard.uri == f"{output}/data/{STEM}.parquet"


def test_what_is_left_out_is_counted_in_one_line(tmp_path: Path) -> None:
    names = ("photo.jpg_large", "b.doc", "IMG_1234", ".DS_Store", "a.jpg", "a.txt", "alone.txt", "list.jsonl")
    write_folder(tmp_path, dict.fromkeys(names, b"x"))
    write_tar(tmp_path / "noise.tar", samples(1))
    write_parquet(tmp_path / "noise.parquet", {"image": [b"x"]})
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    for text in (tmp_path, f"{tmp_path}/*"):
        uris, line = found(text)
        assert uris == [f"{tmp_path}/noise.tar", f"{tmp_path}/a.jpg", f"{tmp_path}/a.txt", f"{tmp_path}/alone.txt"]
        for part in (
            "dead links: 2 (", "gone.jpg", "no extension: 1 (IMG_1234)",
            "extension of no image or shard: 2 (", "Parquet files beside a tar of the same name: 1 (noise.parquet)",
            "JSON lines beside other data: 1 (list.jsonl)", "texts without an image: 1 (alone.txt)",
        ):  # fmt: skip
            assert part in line, (part, line)
    assert "hidden (. or _ before the name): 1 (.DS_Store)" in found(tmp_path)[1]


def test_a_run_tells_it_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    images(world, keys(3))
    write_folder(world.inputs, {"photo.jpg_large": b"x"})
    assert world.run() == 0
    assert [text for text in world.said if "left out" in text] == [
        "left out of the input: extension of no image or shard: 1 (photo.jpg_large)"
    ]


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_empty_places_are_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_folder(tmp_path, {"a.jpg": b"1", "p.txt": b"a boat"}))
    for find in (find_shards, lambda inputs, output: PromptFiles().find(inputs, output)):
        with pytest.raises(SettingError, match="is empty"):
            find([text], str(tmp_path / "out"))
    with pytest.raises(SettingError, match="--output is empty"):
        check_output(text)
    assert [shard.format for shard in find_shards(["."])] == ["folder"]


@pytest.mark.parametrize("text", ["s3:/bucket/x", "GS:/bucket/x", "http:/host/x", "s3://", "s3:///", "gs://"])
def test_half_a_uri_is_no_folder(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for find in (find_shards, lambda inputs, output: PromptFiles().find(inputs, output)):
        with pytest.raises(SettingError, match="one slash after|names no bucket"):
            find([text], str(tmp_path / "out"))
    for check in (check_output, read_status):
        with pytest.raises(SettingError, match="one slash after|names no bucket"):
            check(text)
    assert not any(tmp_path.iterdir())


def test_places_that_are_slightly_wrong_are_cured(tmp_path: Path) -> None:
    write_folder(tmp_path / "My Photos", {"a.jpg": b"1"})
    (tmp_path / "gone").symlink_to("nowhere")
    assert len(find_shards([f"file://localhost{tmp_path}/My Photos"])) == 1
    for text, cure in (
        (f"file://{tmp_path}/My%20Photos", f"Did you mean {tmp_path}/My Photos"),
        (f"{tmp_path}/My Photos ", "without the spaces"),
        (f"{tmp_path}/gone", "broken link"),
        (r"C:\Users\me\photos", "Windows paths do not work"),
        (f"{tmp_path}/{{0..2000000000}}.tar", "more than 1,000,000 names"),
        (f"{tmp_path}/{{0..2000}}/{{0..2000}}.tar", "more than 1,000,000 names"),
    ):
        with pytest.raises(SettingError, match=cure):
            find_shards([text])


@pytest.mark.parametrize(
    "kind", ["file", "file above", "link", "loop", "data", "_chunks/done", "errors", "http", "foo"]
)
def test_outputs_that_cannot_be_are_refused_before_work(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path)
    images(world, keys(2))
    output: Path | str = tmp_path / "out"
    write_folder(tmp_path, {"file": b"x"})
    if kind in ("http", "foo"):
        output = f"{kind}://127.0.0.1:1/x"
    elif kind.startswith("file"):
        output = tmp_path / kind.replace(" above", "/out")
    elif kind in ("link", "loop"):
        Path(output).symlink_to("nowhere" if kind == "link" else "out")
    elif kind == "data":
        write_folder(Path(output), {kind: b"x"})
    else:
        (tmp_path / "out" / kind).parent.mkdir(parents=True)
        (tmp_path / "out" / kind).symlink_to("nowhere")
    world.output = output  # type: ignore[assignment]
    with pytest.raises(SettingError, match="--output"):
        world.run()
    assert not any("to do" in text for text in world.said)


ODD_NAMES = [
    "$HOME", "a::b", "file::x", "s3::y", "a?b", "a#b", "a*b", "a[1]", "a{1,2}", "a%20b", "a b", "a\nb", "-a",
    "~a", "a'b\"c", unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "naïve"), "日本", "a\\b",
    "a?versionId=3",
]  # fmt: skip


@pytest.mark.parametrize("inside", ["", "in::side [x] {a,b} ?#%20/"])
def test_odd_names_are_names(tmp_path: Path, inside: str) -> None:
    world = World(tmp_path)
    names = [f"{inside}{name}" for name in ODD_NAMES]
    images(world, names)
    root = world.inputs / inside.rstrip("/")
    assert world.run(inputs=[world.inputs]) == 0
    assert world.values() == {f"{name}.jpg": f"{name} v1" for name in names}
    for name in ODD_NAMES:
        (shard,) = find_shards([f"{root}/{name}.jpg"])
        assert [file.uri for file in shard.files] == [f"{root}/{name}.jpg"], "a path that exists is no pattern"
        assert fetch(f"{root}/{name}.jpg") == (f"{inside}{name} v1".encode(), f"{name}.jpg")
    (shard,) = find_shards([f"{root}/a*.jpg"] if not inside else [f"{root}/*"])
    assert len(shard.files) >= len([name for name in ODD_NAMES if name.startswith("a")])


@pytest.mark.parametrize("name", ["a::b", "out [1]", "out?x", "out*", "out{a,b}", "out%20x", "-o", "café"])
def test_outputs_with_odd_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    images(world, keys(3))
    world.output = tmp_path / name
    assert world.run(fails=["00001.jpg"]) == 0
    assert world.rows() == once(files(keys(3)))
    assert world.run() == 0 and world.run(retry_errors=True) == 0
    assert len(world.values()) == 3
    for text in (world.output, world.output / "data"):
        assert len(find_shards([str(text)])) == 1
    (line,) = [text for text in world.said if text.startswith("load:")][-1:]
    if "::" in name:
        assert "rename" in line
        return
    import datasets
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "outx").mkdir()
    assert len(eval(line.removeprefix("load:").strip(), {"datasets": datasets})["train"]) == 3


def test_references_are_found_in_other_spellings(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_folder(tmp_path, {f"1/{composed}.jpg": b"1", f"2/{apart}.jpg": b"2", "3/a b.jpg": b"3", "4/a%20b.jpg": b"4"})
    cases: Sequence[tuple[str, bytes]] = [
        (f"1/{apart}.jpg", b"1"), (f"2/{composed}.jpg", b"2"), ("3/a%20b.jpg", b"3"), ("4/a%20b.jpg", b"4"),
    ]  # fmt: skip
    for reference, content in cases:
        assert fetch(uris_module.resolve(reference, str(tmp_path))).content == content
        assert fetch(f"file://{tmp_path}/{reference}").content == content


def test_expressions_of_file_systems_are_refused() -> None:
    for text in ("simplecache::s3://b/a.tar", "zip://a.jpg::x.zip"):
        with pytest.raises(SettingError, match="--input"):
            find_shards([text])


def test_the_library_takes_no_empty_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unicon import UniCon

    monkeypatch.chdir(tmp_path)
    for text in ("", " "):
        with pytest.raises(ValueError, match="got an empty text"):
            UniCon.from_pretrained(text)
        with pytest.raises(ValueError, match="got an empty text"):
            UniCon.from_pretrained("mini", adapters={"depth": text})
