"""Prompts as samples: text lines, JSON lines, Parquet files, copies, and problems."""

from pathlib import Path

import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.sources import Repeated, Source
from pipelines.samples import Sample
from tests.support.inputs import write_folder, write_parquet


def read_all(source: Source, inputs: list[str], limit: int | None = None, chunk_size: int = 2) -> list[Sample]:
    measured = source.measure(source.find(inputs, "/nowhere"), "/nowhere", limit)
    plan = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, chunk_size)
    found = [sample for chunk in plan.chunks for sample in source.read(chunk)]
    assert [sample.position for sample in found] == [at for chunk in plan.chunks for at in chunk.positions]
    return found


def texts(found: list[Sample]) -> list[tuple[str, str]]:
    return [(sample.key, sample.caption if sample.problem is None else sample.problem.reason) for sample in found]


def test_a_line_is_a_prompt(tmp_path: Path) -> None:
    write_folder(tmp_path, {"p.txt": b"\xef\xbb\xbfone\r\n\n  two \nthree"})
    found = texts(read_all(PromptFiles(), [str(tmp_path)]))
    assert found == [("p/00000000", "one"), ("p/00000001", "two"), ("p/00000002", "three")]
    assert len(read_all(PromptFiles(), [f"{tmp_path}/*.txt"], limit=2)) == 2


def test_json_lines(tmp_path: Path) -> None:
    lines = b'{"prompt": "one", "text": "no"}\n{"text": "two"}\n"three"\n{"other": 1}\n{oops\n{"prompt": "\\ud800"}\n'
    write_folder(tmp_path, {"p.jsonl": lines})
    found = texts(read_all(PromptFiles(), [str(tmp_path / "p.jsonl")]))
    assert [text.split(":")[0] for _, text in found] == [
        "one", "two", "three", "the prompt is empty or not a text", "not JSON", "?"
    ]  # fmt: skip
    assert texts(read_all(PromptFiles(column="other"), [str(tmp_path / "p.jsonl")]))[0][1].startswith("the prompt is")


def test_parquet_prompts(tmp_path: Path) -> None:
    columns = {"caption": ["one", "two", None, "four"], "key": ["a", "b", "c", "a"], "n": [1, 2, 3, 4]}
    path = str(write_parquet(tmp_path / "p.parquet", columns))
    found = texts(read_all(PromptFiles(), [path]))
    assert found[:2] == [("a", "one"), ("b", "two")]
    assert found[2][1] == "the prompt is empty or not a text"
    assert "duplicate key" in found[3][1]
    with pytest.raises(SettingError, match="--prompt-column 'p' is not in .* Its columns: caption, key, n"):
        read_all(PromptFiles(column="p"), [path])
    with pytest.raises(SettingError, match="--key-column 'id' is not in"):
        read_all(PromptFiles(key="id"), [path])


def test_several_pairs_a_prompt(tmp_path: Path) -> None:
    write_folder(tmp_path, {"p.txt": b"one\ntwo\n"})
    source = Repeated(source=PromptFiles(), copies=3, option="--pairs-per-prompt")
    found = texts(read_all(source, [str(tmp_path)]))
    assert [key for key, _ in found] == [f"p/0000000{prompt}#{copy}" for prompt in (0, 1) for copy in range(3)]
    assert [text for _, text in found] == ["one"] * 3 + ["two"] * 3
    assert len(read_all(source, [str(tmp_path)], limit=1)) == 3


def test_unreadable_files_and_places(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.parquet": b"junk", "b.doc": b"x", "_hidden/c.txt": b"x"})
    (sample,) = read_all(PromptFiles(), [str(tmp_path)])
    assert sample.problem is not None
    for name in ("b.doc", "absent.txt", "*.csv"):
        with pytest.raises(SettingError, match="holds no prompts"):
            PromptFiles().find([str(tmp_path / name)], "/nowhere")


def test_one_file_named_in_two_ways_is_one_shard(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"p.txt": b"one", ".hidden/q.txt": b"two", "sub/r.jsonl": b'"x"'})
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "named.txt").symlink_to("in/p.txt")
    names = ["in", "link", "in/p.txt", "named.txt", "in/*.txt", "link/sub", "in/sub/*"]
    for inputs in (names, names[::-1]):
        found = PromptFiles().find([f"{tmp_path}/{name}" for name in inputs], "/nowhere")
        assert sorted(shard.uri for shard in found) == [f"{tmp_path}/in/p.txt", f"{tmp_path}/in/sub/r.jsonl"]
    (linked,) = PromptFiles().find([f"{tmp_path}/named.txt"], "/nowhere")
    assert (linked.uri, linked.former_uri) == (f"{tmp_path}/in/p.txt", f"{tmp_path}/named.txt")


def test_hidden_names_are_those_below_the_input(tmp_path: Path) -> None:
    write_folder(tmp_path / ".cache", {"p.txt": b"one", "_q/r.txt": b"two"})
    for text in (".cache", ".cache/*.txt", ".cache/p.txt", ".cache/**/p.txt"):
        (shard,) = PromptFiles().find([f"{tmp_path}/{text}"], "/nowhere")
        assert shard.stem == "p"


def test_an_output_below_the_prompts_is_never_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"p.txt": b"one", "out/data/x.parquet": b"x"})
    (tmp_path / "elsewhere").symlink_to("in/out")
    for output in ("in/out", "elsewhere", "in/out/"):
        for text in ("in", "in/**/*"):
            found = PromptFiles().find([f"{tmp_path}/{text}"], f"{tmp_path}/{output}")
            assert [shard.stem for shard in found] == ["p"]


def test_fields_of_json_lines_that_are_named(tmp_path: Path) -> None:
    lines = [b'{"p": "one", "id": 1}', b'{"p": ["two", "three"], "id": "a"}', b'{"p": "four"}', b'{"p": 5, "id": "b"}',
             b'{"p": "six", "id": ["c"]}', b'{"p": "caf\xe9", "id": 1}', b'["x"]']  # fmt: skip
    write_folder(tmp_path, {"p.jsonl": b"\n".join(lines)})
    found = texts(read_all(PromptFiles(column="p", key="id"), [str(tmp_path / "p.jsonl")]))
    assert found == [
        ("1", "one"),
        ("a", "two"),
        ("p/00000002", "the field id is missing or null"),
        ("b", "the prompt is empty or not a text: not a caption but a number: 5"),
        ("p/00000004", "the field id is not a key: a key is one text or number, this one is a list"),
        ("1", "duplicate key: an earlier sample of this shard is called '1' too"),
        ("p/00000006", "the field id is missing or null"),
    ]
    for source, option in ((PromptFiles(column="q"), "--prompt-column"), (PromptFiles(key="q"), "--key-column")):
        with pytest.raises(SettingError, match=f"{option} 'q' is not in the first line of .* Its fields: p, id"):
            read_all(source, [str(tmp_path / "p.jsonl")])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_lines_of_any_encoding(encoding: str, line_break: str, tmp_path: Path) -> None:
    text = line_break.join(["a red boat", "", "café au lait", ""])
    for name, content in (("p.txt", text), ("p.jsonl", text.replace("a red boat", '"a red boat"'))):
        write_folder(tmp_path, {name: content.encode(encoding)})
        found = texts(read_all(PromptFiles(), [str(tmp_path / name)]))
        assert found[0][1] == "a red boat" and len(found) == 2
    assert texts(read_all(PromptFiles(), [str(tmp_path / "p.txt")]))[1][1] == "café au lait"


def test_a_line_break_within_a_prompt_is_none_where_lines_end_otherwise(tmp_path: Path) -> None:
    write_folder(tmp_path, {"p.txt": b"one\rstill one\ntwo\n"})
    assert [text for _, text in texts(read_all(PromptFiles(), [str(tmp_path)]))] == ["one\rstill one", "two"]


def test_json_lines_without_prompts_are_a_wrong_setting(tmp_path: Path) -> None:
    write_folder(tmp_path, {"p.jsonl": b'{"Prompt": "a"}\n{"title": "b"}\n'})
    with pytest.raises(SettingError, match="has no field prompt, caption or text. Its fields: Prompt. Name one with"):
        read_all(PromptFiles(), [str(tmp_path)])
    found = texts(read_all(PromptFiles(column="Prompt"), [str(tmp_path)]))
    assert [text for _, text in found] == [
        "a", "the prompt is empty or not a text: no field Prompt, the line has title"
    ]  # fmt: skip
