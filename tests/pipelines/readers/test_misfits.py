"""Input files that lack what the settings need: one of many is an error row, all of them are a wrong setting."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from pipelines.errors import SettingError
from pipelines.readers import misfits, parquet_format
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns
from tests.support.estimating import estimate
from tests.support.in_process import World
from tests.support.inputs import encoded_image, samples, write_folder, write_parquet, write_tar

IMAGES = [encoded_image(number, size=(12, 10)) for number in range(2)]
GOOD = {"image": IMAGES, "caption": ["one", "two"], "id": ["a", "b"]}


def doubled(name: str, values: list[Any]) -> Callable[[Path], object]:
    """Return a writer of a file with two columns of the same name."""
    columns = [pa.array(column) for column in GOOD.values()]
    return lambda path: pq.write_table(pa.table([*columns, pa.array(values)], names=[*GOOD, name]), path)


def encrypted(path: Path) -> None:
    """Write an encrypted file, which cannot be read without its key."""

    class Keys(pe.KmsClient):
        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
            return key_bytes

    factory = pe.CryptoFactory(lambda config: Keys())
    how = pe.EncryptionConfiguration(footer_key="f", uniform_encryption=True, double_wrapping=False)
    table = pa.table(GOOD)
    with pq.ParquetWriter(
        path, table.schema, encryption_properties=factory.file_encryption_properties(pe.KmsConnectionConfig(), how)
    ) as writer:
        writer.write_table(table)


def lines(text: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    """Return a writer of a file with the extension of JSON lines."""
    return lambda path: path.with_suffix(".jsonl").write_text(text, encoding)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "two of the image's name": (doubled("image", IMAGES), "'image' is ambiguous: .* has 2 columns of this name"),
    "two of the caption's name": (doubled("caption", [1, 2]), "'caption' is ambiguous"),
    "two of the key's name": (doubled("id", [1, 2]), "'id' is ambiguous"),
    "no such key": (lambda path: write_parquet(path, {"image": IMAGES}), "--key-column 'id' is not in"),
    "no columns": (lambda path: pq.write_table(pa.table({}), path), "--key-column 'id' is not in"),
    "no image": (lambda path: write_parquet(path, {"id": ["a"], "n": [1]}), "0 columns that can hold images"),
    "numbers as image": (lambda path: write_parquet(path, {"id": ["a"], "image": [1]}), "0 columns|has type int64"),
    "an array": (lines('[\n {"image": "a.jpg", "id": 1},\n {}\n]'), "is one JSON array"),
    "an array, a line each": (lines('[\n{"image": "a"}\n]'), "is one JSON array"),
    "an array on a line": (lines('[{"image": "a"}, {}]'), "is one JSON array"),
    "a CSV": (lines("image,text\na.jpg,x\nb.jpg,y\n"), "is not JSON lines"),
    "UTF-16": (lines('{"image": "a"}\n{}\n', "utf-16"), "is UTF-16"),
    "UTF-16 without a mark": (lines('{"image": "a"}\n{}\n', "utf-16-be"), "is UTF-16BE.*iconv -f UTF-16BE"),
    "UTF-32": (lines('{"image": "a"}\n{}\n', "utf-32"), "is UTF-32LE"),
    "gzip": (lambda path: path.with_suffix(".jsonl").write_bytes(gzip.compress(b"{}")), "is gzip data; unpack it"),
    "a pointer": (lines("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "is a Git-LFS pointer"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_goes_with_no_setting_stops_alone_and_is_a_row_beside_others(name: str, tmp_path: Path) -> None:
    write, message = BAD[name]
    write(tmp_path / "b.parquet")
    (bad,) = tmp_path.glob("b.*")
    columns = Columns(key="id")
    with pytest.raises(SettingError, match=message) as caught:
        estimate([bad], tmp_path / "out", columns)
    assert str(bad) in str(caught.value)
    assert not (tmp_path / "out" / "data").exists()
    good = tmp_path / f"a{bad.suffix}"
    if bad.suffix == ".parquet":
        write_parquet(good, GOOD)
    else:
        (tmp_path / "a.jpg").write_bytes(IMAGES[0])
        good.write_text('{"image": "a.jpg", "id": "a"}\n{"image": "a.jpg", "id": "b"}\n')
    for inputs in ([good, bad], [bad, good]):
        ran = estimate(inputs, tmp_path / "-".join(path.stem for path in inputs), columns)
        assert (ran.code, [row["key"] for row in ran.rows]) == (0, ["a", "b"])
        assert list(ran.reasons) == [f"{bad.name}#rest"]
        assert "does not match the settings" in ran.reasons[f"{bad.name}#rest"]


def test_a_doubled_column_that_nobody_needs_does_no_harm(tmp_path: Path) -> None:
    doubled("id", [1, 2])(tmp_path / "a.parquet")
    ran = estimate([tmp_path / "a.parquet"], tmp_path / "out")
    assert [row["caption"] for row in ran.rows] == ["one", "two"]
    with pytest.raises(SettingError, match="--where 'id>1': column 'id' is ambiguous"):
        estimate([tmp_path / "a.parquet"], tmp_path / "out2", Columns(where=("id>1",)))


def test_an_encrypted_file_is_one_row_with_the_reason(tmp_path: Path) -> None:
    encrypted(tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet", GOOD)
    ran = estimate([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "out")
    assert len(ran.rows) == 2
    assert "encrypted" in ran.reasons["a.parquet#rest"]


def test_a_condition_that_one_file_cannot_be_asked_for_costs_that_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {**GOOD, "width": [1, 600]})
    write_parquet(tmp_path / "b.parquet", GOOD)
    inputs = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    ran = estimate(inputs, tmp_path / "out", Columns(where=("width>=512",)))
    assert [row["caption"] for row in ran.rows] == ["two"]
    assert list(ran.reasons) == ["b.parquet#rest"]
    with pytest.raises(SettingError, match="has no such column"):
        estimate(inputs[1:], tmp_path / "out2", Columns(where=("width>=512",)))


def test_a_setting_that_no_file_goes_with_is_found_without_reading_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(misfits, "MAX_MISFITS", 20)
    for number in range(60):
        write_parquet(tmp_path / "in" / f"{number:02d}.parquet", {"image": IMAGES})
    looked_at: list[str] = []
    original = parquet_format.index_parquet
    monkeypatch.setattr(
        parquet_format, "index_parquet", lambda uri, *rest: looked_at.append(uri) or original(uri, *rest)
    )
    with pytest.raises(SettingError, match="--key-column 'id' is not in .*/00.parquet"):
        estimate([tmp_path / "in"], tmp_path / "out", Columns(key="id"))
    assert len(looked_at) <= 32


def test_media_that_one_file_does_not_have(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {**GOOD, "mask": IMAGES})
    write_parquet(tmp_path / "b.parquet", GOOD)
    source = ImageShards(columns=Columns(image="image", media=("mask",)), media_options={"mask": "--mask-column mask"})
    ran = estimate([tmp_path], tmp_path / "out", source=source)
    assert (len(ran.rows), list(ran.reasons)) == (2, ["b.parquet#rest"])
    with pytest.raises(SettingError, match="^--mask-column mask is not in"):
        estimate([tmp_path / "b.parquet"], tmp_path / "out2", source=source)


def test_a_file_that_arrives_while_a_run_works_does_not_stop_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    write_parquet(world.inputs / "a.parquet", {"image": [b"a v1", b"b v1"], "key": ["a", "b"]})

    def during(chunks: Any, do: Any) -> None:
        write_parquet(world.inputs / "b.parquet", {"n": [1]})
        for chunk in chunks:
            do(chunk)

    assert world.run(during=during) == 0
    assert set(world.rows()) == {"a", "b", "b.parquet#rest"}


def test_prompts_of_which_one_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"prompt": "one"}\n"two"\n')
    (tmp_path / "b.json").write_text('[\n "one",\n "two"\n]')
    write_parquet(tmp_path / "c.parquet", {"prompt": ["three"]})
    write_parquet(tmp_path / "d.parquet", {"n": [1]})
    source = PromptFiles()

    def found(*names: str) -> list[str]:
        shards = source.find([str(tmp_path / name) for name in names], "/nowhere")
        return [f"{each.samples} {each.damage.split(':')[0]}" for each in source.measure(shards, "/nowhere", None)]

    assert found("a.json", "b.json", "c.parquet", "d.parquet") == [
        "2 ", "1 the jsonl file does not match the settings", "1 ", "1 the parquet file does not match the settings"
    ]  # fmt: skip
    for name, message in (("b.json", "is one JSON array"), ("d.parquet", "has no column prompt. Its columns: n")):
        with pytest.raises(SettingError, match=message):
            found(name)


@pytest.mark.parametrize("name", ["bzip2.tar", "pointer.tar", "page.parquet", "gzip.parquet"])
def test_what_is_no_shard_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    content, what = {
        "bzip2.tar": (
            bz2.compress(write_tar(tmp_path / "t.tar", samples(1)).read_bytes()),
            "bzip2 data; unpack it first",
        ),
        "pointer.tar": (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git-LFS pointer; get the file: git lfs pull",
        ),
        "page.parquet": (b"<!DOCTYPE html><html></html>", "a web page"),
        "gzip.parquet": (gzip.compress(b"x"), "gzip data; unpack it first"),
    }[name]
    (tmp_path / name).write_bytes(content)
    ran = estimate([tmp_path / name], tmp_path / "out")
    assert ran.code == 3
    assert ran.reasons[f"{name}#rest"].endswith(f" but {what}")


def test_columns_that_are_named_for_files_without_any_are_told_or_refused(tmp_path: Path) -> None:
    """Tars and folders have no columns, so a condition would accept every sample."""
    tar, folder = write_tar(tmp_path / "a.tar", samples(1)), write_folder(tmp_path / "in", {"a.jpg": IMAGES[0]})
    for path in (tar, folder):
        assert any("--key-column 'id' has no effect" in line for line in told(path, Columns(key="id")))
        with pytest.raises(SettingError, match="--where 'w>1' needs Parquet files"):
            estimate([path], tmp_path / "out", Columns(where=("w>1",)))
    assert any("--image-column 'png' has no effect" in line for line in told(folder, Columns(image="png")))
    with pytest.raises(SettingError, match=r"--image-column 'png': no \.png in the first samples of .*\.jpg, \.txt"):
        estimate([tar], tmp_path / "out", Columns(image="png"))
    assert not [line for line in told(tar, Columns(image="jpg")) if "no effect" in line]
    for wanted in ("tags", "txt", "title"):
        with pytest.raises(SettingError, match=f"--caption-column '{wanted}': the images of .* have no text of that"):
            estimate([folder], tmp_path / "out", Columns(caption=wanted))
    write_folder(folder, {"a.json": b'{"title": null}'})
    assert ImageShards(columns=Columns(caption="title")).measure(find_shards([str(folder)]), str(tmp_path), None)


def told(path: Path, columns: Columns) -> list[str]:
    said: list[str] = []
    ImageShards(columns=columns).find([str(path)], str(path.parent / "out"), said.append)
    return said
