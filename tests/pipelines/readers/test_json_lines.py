"""JSON lines: images by URI, fields, keys, broken lines."""

import dataclasses
import json
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.dataset.layout import Listing
from pipelines.errors import SettingError, ShardChangedError
from pipelines.planning.plan import make_plan
from pipelines.readers import json_lines, references
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.samples import Columns, Sample
from tests.support.inputs import write_folder


def write_lines(path: Path, lines: list[object]) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return write_folder(path.parent, {path.name: "\n".join(texts).encode()}) / path.name


def read_all(uri: str, tmp_path: Path, columns: Columns | None = None, chunk_size: int = 3) -> list[Sample]:
    columns = columns or Columns()
    measured = measure(find_shards([uri]), columns, str(tmp_path / "out"))
    plan = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, chunk_size)
    found = [sample for chunk in plan.chunks for sample in read_chunk(chunk, columns)]
    assert len(found) == plan.samples
    assert [sample.position for sample in found] == [*range(plan.samples)]
    return found


def test_uris_of_every_kind(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"photos/1.jpg": b"1", "2.jpg": b"2"})
    storage.publish("memory://lines/3.jpg", b"3")
    path = write_lines(
        tmp_path / "in" / "list.jsonl",
        [
            {"image": "photos/1.jpg", "caption": "one"},
            {"url": f"{tmp_path}/in/2.jpg", "text": "two"},
            {"uri": "memory://lines/3.jpg", "prompt": "three"},
            {"image": {"path": "../in/2.jpg"}, "key": "named"},
            {"image_url": f"file://{tmp_path}/in/photos/1.jpg"},
        ],
    )
    found = read_all(str(path), tmp_path)
    assert [(sample.image, sample.caption) for sample in found] == [
        (b"1", "one"),
        (b"2", "two"),
        (b"3", "three"),
        (b"2", ""),
        (b"1", ""),
    ]
    assert [sample.key for sample in found] == [f"list/{n:08d}" for n in range(3)] + ["named", "list/00000004"]
    assert [sample.image_name for sample in found] == ["1.jpg", "2.jpg", "3.jpg", "2.jpg", "1.jpg"]


def test_what_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "MAX_FILE_BYTES", 10)
    write_folder(tmp_path, {"1.jpg": b"1", "empty.jpg": b"", "large.jpg": b"x" * 11, "folder/x.jpg": b""})
    lines: dict[str, object] = {
        "": {"key": "a", "image": "1.jpg"},
        "duplicate key": {"key": "a", "image": "1.jpg"},
        "the line is not JSON:": '{"image": ',
        "the line is not a JSON object": "[1]",
        "no field of an image": {"key": 3, "caption": "x"},
        "the field image holds a number, not a URI": {"image": 5},
        "the field image holds an object": {"image": {"width": 3}},
        "there is nothing|cannot read": {"image": "absent.jpg"},
        "is larger than 10 bytes": {"image": "large.jpg"},
        "the image file empty.jpg is empty": {"image": "empty.jpg"},
        "cannot read .*: IsADirectoryError": {"image": "folder"},
        "cannot read .*: Protocol not known: nowhere": {"image": "nowhere://x/y.jpg"},
        "cannot read .*: OSError": {"image": "n" * 300},
        "cannot read .*x.*: ValueError": {"image": "x\0y"},
    }
    found = read_all(str(write_lines(tmp_path / "list.jsonl", list(lines.values()))), tmp_path)
    for sample, reason in zip(found, lines, strict=True):
        assert (sample.problem is None) == (reason == "")
        if sample.problem is not None:
            with pytest.raises(ValueError, match=reason):
                raise sample.problem


def test_nested_fields(tmp_path: Path) -> None:
    write_folder(tmp_path, {"1.jpg": b"1", "2.jpg": b"2"})
    line = {"media": [{"src": "1.jpg"}, {"src": "2.jpg"}], "meta": {"id": 7, "text": {"en": "hello"}}, "a.b": "1.jpg"}
    path = str(write_lines(tmp_path / "list.jsonl", [line]))
    columns = Columns(image="media.1.src", key="meta.id", caption="meta.text.en", media=("a.b",))
    (sample,) = read_all(path, tmp_path, columns)
    assert (sample.image, sample.key, sample.caption, sample.media["a.b"].content) == (b"2", "7", "hello", b"1")
    with pytest.raises(SettingError, match="--image-column 'picture' is not in the first line .*: media, meta, a.b"):
        read_all(path, tmp_path, Columns(image="picture"))


def test_chunks_enter_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 1000)
    write_folder(tmp_path, {"1.jpg": b"1"})
    lines = ["\ufeff" + json.dumps({"image": "1.jpg", "caption": "0"}), "", "  "]
    lines += [json.dumps({"image": "1.jpg", "caption": str(number)}) for number in range(1, 100)]
    lines.insert(40, "x" * 5000)
    lines.insert(41, json.dumps({"image": "1.jpg", "caption": "y" * 960}))
    found = read_all(str(write_lines(tmp_path / "list.ndjson", [*lines, "", ""])), tmp_path, chunk_size=7)
    captions = [sample.caption for sample in found if sample.problem is None and len(sample.caption) < 10]
    assert captions == [str(number) for number in range(100)]
    assert [sample.problem.reason for sample in found if sample.problem] == ["the line is longer than 1000 bytes"]
    assert len(found) == 102


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path, {"1.jpg": b"1"})
    path = write_lines(tmp_path / "list.jsonl", [{"image": "1.jpg"}] * 5)
    measured = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    (chunk,) = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, 10).chunks
    write_lines(path, [{"image": "1.jpg"}] * 3)
    with pytest.raises(OSError, match="changed while the job runs"):
        list(read_chunk(dataclasses.replace(chunk, shard_fingerprint=""), Columns()))
    with pytest.raises(ShardChangedError, match="changed while it was read"):
        list(read_chunk(chunk, Columns()))


def test_images_are_fetched_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(storage, "read_bytes", lambda uri, limit: read.append(uri) or b"x")
    path = write_lines(tmp_path / "list.jsonl", [{"image": f"{number}.jpg"} for number in range(100)])
    measured = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    (chunk,) = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, 100).chunks
    samples = read_chunk(chunk, Columns())
    next(samples)
    assert len(read) <= 2 * references.FETCHES_AT_ONCE
    assert len(list(samples)) == 99
