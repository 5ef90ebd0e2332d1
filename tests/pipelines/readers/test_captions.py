"""Captions: texts, lists, bytes in any encoding, and notes about everything that is left out."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import SampleError, SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers.captions import Caption, caption_from, chosen_caption, decode_text, json_caption
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import ignored_members, measure
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns, Sample
from pipelines.tasks.pair_generation import PairGeneration
from tests.support.inputs import write_folder, write_parquet, write_tar
from tests.support.paths import CASES


def read(path: Path, output: Path, columns: Columns | None = None) -> list[Sample]:
    columns = columns or Columns()
    plan = make_plan(measure(find_shards([str(path)]), columns, str(output)), Listing(finished=(), remains=()), "c", 64)
    return [sample for chunk in plan.chunks for sample in read_chunk(chunk, columns)]


@pytest.mark.parametrize("text", ["a red boat", "café au lait", "Ångström, “straße” – 5 €", "你好 世界", "🐱", ""])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_any_unicode_encoding_is_read(text: str, encoding: str) -> None:
    assert decode_text(f" {text}\r\n".encode(encoding)) == Caption(text)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_known_by_its_zeros(encoding: str) -> None:
    for text in ("ab", "a red boat\nat sea", "café au lait, 你好"):
        assert decode_text(text.encode(encoding)) == Caption(text)
        assert decode_text((text + "\0").encode(encoding)) == Caption(text)
    assert decode_text(b"caption\0" + bytes(5)) == Caption("caption")
    assert decode_text(b"one\0two") == Caption("onetwo")


@pytest.mark.parametrize("text", ["café", "été", "Grüße aus Köln", "“naïve”"])
def test_western_text_that_is_not_utf_8_is_read_and_told(text: str) -> None:
    assert decode_text(text.encode("windows-1252")) == Caption(text, "decoded as Windows-1252, since it is not UTF-8")


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)),
        "привет мир".encode("cp1251"),
        "你好世界".encode("gbk"),
        "テスト".encode("shift-jis"),
        b"\xff" * 9,
    ],
)
def test_what_is_no_text_is_told_and_not_guessed(content: bytes) -> None:
    text, note = decode_text(content)
    assert text == ""
    assert note == f"not a text: {len(content)} bytes that are neither UTF-8 nor UTF-16"


def test_a_text_that_was_cut_within_a_letter_keeps_the_rest() -> None:
    assert decode_text("你好世界".encode()[:-1]) == Caption("你好世\ufffd", "damaged text: 1 characters are not utf-8")
    text, note = decode_text("boat".encode("utf-16")[:-1])
    assert (text, note) == ("boa\ufffd", "damaged text: 1 characters are not utf-16-le")


@pytest.mark.parametrize(
    ("value", "text", "note"),
    [
        ("as it is ", "as it is ", ""),
        (["", None, " ", "two", "three"], "two", ""),
        ([b"caf\xc3\xa9"], "café", ""),
        ((), "", ""),
        (None, "", ""),
        (float("nan"), "", ""),
        (b"a red boat", "a red boat", ""),
        ("caf\udce9", "café", "decoded as Windows-1252, since it is not UTF-8"),
        ("half \ud83d pair", "half ? pair", "characters that are not Unicode were replaced"),
        (3.5, "", "not a caption but a number: 3.5"),
        (True, "", "not a caption but a boolean: True"),
        ({"en": "boat"}, "", "not a caption but an object: {'en': 'boat'}"),
        ([7, "seven"], "seven", "not a caption but a number: 7"),
    ],
)
def test_values_of_any_type(value: Any, text: str, note: str) -> None:
    assert caption_from(value) == Caption(text, note)


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (2.5, "2.5"), (Decimal("1.50"), "1.50"), (float("inf"), ""), (True, ""), ("a", "a")]
)
def test_a_number_in_a_column_that_was_named_is_written_out(value: Any, text: str) -> None:
    assert chosen_caption(value).text == text


@pytest.mark.parametrize(
    ("content", "wanted", "text", "note"),
    [
        ('["one", "two"]', None, "one", ""),
        ('"a boat"', None, "a boat", ""),
        ('{"caption": ["", "two"]}', None, "two", ""),
        ('{"caption": NaN, "text": "from text"}', None, "from text", ""),
        ('{"caption": 3, "text": "t"}', None, "t", "caption: not a caption but a number: 3"),
        ('{"caption": {"en": "boat"}}', "caption.en", "boat", ""),
        ('{"size": 3}', None, "", ""),
        ("{half", None, "", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("12", None, "", "not a caption but a number: 12"),
    ],
)
def test_captions_in_json(content: str, wanted: str | None, text: str, note: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        assert json_caption(content.encode(encoding), wanted) == Caption(text, note)


def test_the_captions_of_a_tar(tmp_path: Path) -> None:
    found = {sample.key: (sample.caption, sample.caption_note) for sample in read(CASES / "captions.tar", tmp_path)}
    assert found == {
        "cap_latin": ("café", "the .txt file: decoded as Windows-1252, since it is not UTF-8"),
        "cap_u16": ("a red boat", ""),
        "cap_nul": ("ab", ""),
        "cap_arr": ("one", ""),
        "cap_list": ("one", ""),
        "cap_nan": ("from text", ""),
        "cap_sur": ("half ? pair", "the .json file: caption: characters that are not Unicode were replaced"),
        "cap_upper": ("upper case", ""),
    }


def test_names_with_more_dots_have_their_captions(tmp_path: Path) -> None:
    found = read(CASES / "dotted_names.tar", tmp_path)
    assert [(sample.key, sample.caption) for sample in found if sample.problem is None] == [
        ("235 Track 2", "caption of dotted name"),
        ("v1.0/img_001", ""),
    ]
    (two,) = [sample for sample in found if sample.problem is not None]
    assert two.problem and "a key ends at the first dot of a name" in two.problem.reason


def tar_with(path: Path, names: dict[str, bytes]) -> Path:
    return write_tar(path / "a.tar", list(names.items()))


@pytest.mark.parametrize("beside", ["a 1.5 (b).txt", "a 1.5 (b).json", "a 1.5 (b).caption", "a 1.5 (b).jpg.txt"])
def test_a_text_beside_a_dotted_name(tmp_path: Path, beside: str) -> None:
    """The same holds in a tar and in a folder."""
    content = b'{"text": "a boat"}' if beside.endswith("json") else b"a boat"
    files = {"a 1.5 (b).jpg": b"1", beside: content}
    for path in (tar_with(tmp_path / "tar", files), write_folder(tmp_path / "folder", files)):
        assert [sample.caption for sample in read(path, tmp_path / "out")] == ["a boat"]


def test_members_of_a_dotted_name_can_be_asked_for(tmp_path: Path) -> None:
    files = {"a 1.5 (b).jpg": b"1", "a 1.5 (b).depth.png": b"2", "c.seg.png": b"3", "c.txt": b"plain"}
    found = read(tar_with(tmp_path, files), tmp_path, Columns(image="jpg", media=("depth.png",)))
    assert (found[0].image, found[0].media["depth.png"].content, found[0].problem) == (b"1", b"2", None)
    found = read(tar_with(tmp_path, files), tmp_path, Columns(image="png"))
    assert [sample.image for sample in found] == [b"", b""]  # seg.png is another kind of image, not a name


def test_of_several_images_of_a_key_each_has_its_own_caption(tmp_path: Path) -> None:
    files = {"a.b.jpg": b"1", "a.b.txt": b"one", "a.c.jpg": b"2", "a.c.txt": b"two"}
    path = tar_with(tmp_path, files)
    assert read(path, tmp_path)[0].problem is not None
    for image, caption in (("b.jpg", "one"), ("c.jpg", "two")):
        (sample,) = read(path, tmp_path, Columns(image=image))
        assert (sample.caption, sample.problem) == (caption, None)


def test_the_named_caption_is_taken_and_a_missing_one_is_told(tmp_path: Path) -> None:
    missing = "there is no title, neither as a file nor as a field"
    samples = {
        "a": ({"a.txt": b"text", "a.json": b'{"title": "field"}'}, ("field", "")),
        "b": ({"b.txt": b"text", "b.title": b"file"}, ("file", "")),
        "c": ({"c.txt": b"text", "c.json": b"{}"}, ("text", missing)),
        "d": ({}, ("", "")),
    }
    files = {
        name: content
        for key, (beside, _) in samples.items()
        for name, content in {f"{key}.jpg": b"1", **beside}.items()
    }
    for path in (tar_with(tmp_path / "tar", files), write_folder(tmp_path / "folder", files)):
        for sample in read(path, tmp_path / "out", Columns(caption="title")):
            key = sample.key.removesuffix(".jpg")
            if not (key == "b" and path.is_dir()):  # in folders, texts have known extensions
                assert (sample.caption, sample.caption_note) == samples[key][1], (path, key)


def test_side_cars_of_a_folder_are_read_by_the_same_rule(tmp_path: Path) -> None:
    files = {
        **{f"{name}.jpg": b"1" for name in "abcdef"},
        "a.txt": "a red boat".encode("utf-16"),
        "b.json": b'{"caption": ["one", "two"]}',
        "c.txt": bytes(range(256)),
        "d.json": b'{"caption": 4}',
        "e.TXT": b"caf\xe9",
        "f.txt": b" ",
        "f.json": b'"from json"',
    }
    found = {sample.key: sample for sample in read(write_folder(tmp_path / "in", files), tmp_path / "out")}
    assert [found[f"{name}.jpg"].caption for name in "abcdef"] == ["a red boat", "one", "", "", "café", "from json"]
    assert found["c.jpg"].caption_note == "the .txt file: not a text: 256 bytes that are neither UTF-8 nor UTF-16"
    assert found["d.jpg"].caption_note == "the .json file: caption: not a caption but a number: 4"


def test_lists_and_bytes_in_columns_and_json_lines(tmp_path: Path) -> None:
    captions = {"list": [["one", "two"], [], None], "bytes": [b"caf\xe9", b"x", None], "label": [3, None, 0]}
    for name, values in captions.items():
        path = write_parquet(tmp_path / f"{name}.parquet", {"image": [b"1"] * 3, "c": values})
        found = read(path, tmp_path / "out", Columns(caption="c"))
        assert [sample.caption for sample in found] == {
            "list": ["one", "", ""],
            "bytes": ["café", "x", ""],
            "label": ["3", "", "0"],
        }[name]
    lines = [{"image": "1.jpg", "caption": value} for value in (["", "two"], 5, "plain")]
    write_folder(tmp_path, {"1.jpg": b"1", "a.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    found = read(tmp_path / "a.jsonl", tmp_path / "out")
    assert [sample.caption for sample in found] == ["two", "", "plain"]
    assert found[1].caption_note == "caption: not a caption but a number: 5"


def test_a_prompt_that_is_none_is_an_error_row_unless_another_is_given() -> None:
    sample = Sample(position=0, key="a", caption_note="caption: not a caption but a number: 5")
    with pytest.raises(SampleError, match="cannot be used as a prompt: caption: not a caption but a number: 5"):
        PairGeneration(conditions=()).read(sample)
    assert PairGeneration(conditions=(), prompt="a boat").read(sample)["caption"] == "a boat"
    assert PairGeneration(conditions=()).read(Sample(position=0, key="a"))["caption"] == ""


def test_a_caption_that_no_sample_of_a_tar_has_is_a_wrong_setting(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "in", {"a.jpg": b"1", "a.json": b'{"title": {"en": "boat"}}', "a.txt": b"x"})
    for wanted in ("title", "title.en", "txt", "json"):
        source = ImageShards(columns=Columns(caption=wanted))
        assert source.measure(source.find([str(path)], ""), str(tmp_path / "out"), None)
    source = ImageShards(columns=Columns(caption="titel"))
    with pytest.raises(SettingError, match=r"no file \.titel, nor such a field.*\.jpg, \.json, \.txt"):
        source.measure(source.find([str(path)], ""), str(tmp_path / "out"), None)


def test_files_of_a_tar_that_belong_to_no_sample_are_counted(tmp_path: Path) -> None:
    names = ["a.jpg", "IMG0001", "folder/IMG0002", ".hidden", "__MACOSX/x", "sub/._a.jpg", "./b.jpg"]
    measured = measure(
        find_shards([str(tar_with(tmp_path, dict.fromkeys(names, b"1")))]), Columns(), str(tmp_path / "out")
    )
    line = ignored_members(measured)
    assert line.startswith("left out of 1 tars: 2 files that are not called KEY.EXTENSION, such as 'IMG0001' in")
    assert ignored_members(measure([each.shard for each in measured], Columns(), str(tmp_path / "out"))) == line


def test_captions_under_names_in_capitals_and_of_other_types(tmp_path: Path) -> None:
    """In a column and in a JSON field alike, the caption is read or a note tells why not."""
    kinds: dict[str, tuple[Any, tuple[str, str]]] = {
        "TEXT": ("a boat", ("a boat", "")),
        "Caption": (["a boat"], ("a boat", "")),
        "caption": ([{"raw": "a boat"}], ("", "not a caption but an object: {'raw': 'a boat'}")),
        "prompt": (7, ("", "not a caption but a number: 7")),
    }
    for name, (value, (text, note)) in kinds.items():
        path = write_parquet(tmp_path / f"{name}.parquet", {"image": [b"1"], name: [value]})
        (row,) = read(path, tmp_path / "out")
        write_folder(tmp_path, {"1.jpg": b"1", f"{name}.jsonl": json.dumps({"image": "1.jpg", name: value}).encode()})
        (line,) = read(tmp_path / f"{name}.jsonl", tmp_path / "out")
        assert (row.caption, row.caption_note) == (text, note)
        assert (line.caption, line.caption_note) == (text, note and f"{name}: {note}")


def test_captions_in_maps(tmp_path: Path) -> None:
    """Spark and DuckDB write objects as maps."""
    values = pa.array(
        [[("en", "a boat"), ("de", "ein Boot")], [("de", "nur")], None], pa.map_(pa.string(), pa.string())
    )
    pq.write_table(pa.table({"image": [b"1"] * 3, "captions": values}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", tmp_path / "out", Columns(caption="captions.en"))
    assert [sample.caption for sample in found] == ["a boat", "", ""]


def test_images_that_the_dots_of_their_names_hide_are_counted(tmp_path: Path) -> None:
    names = ["Photo 1.jpg", "Photo 1.5 (edit).jpg", "b.jpg", "b.seg.png", "b.0001.jpg"]
    path = tar_with(tmp_path, dict.fromkeys(names, b"1"))
    line = ignored_members(measure(find_shards([str(path)]), Columns(), str(tmp_path / "out")))
    assert line.startswith("left out of 1 tars: 1 files") and "'Photo 1.5 (edit).jpg'" in line
