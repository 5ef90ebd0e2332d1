"""Samples of tars, Parquet files and folders: pictures, captions, and what is wrong with them."""

from pathlib import Path

from pipelines.inputs import find_shards
from pipelines.layout import Listing
from pipelines.measure import measure
from pipelines.plan import make_plan
from pipelines.readers import read_chunk
from pipelines.samples import Columns, Sample
from tests.inputs import write_folder, write_parquet, write_tar


def read_all(uri: Path, output: Path, columns: Columns | None = None, chunk_size: int = 3) -> list[Sample]:
    columns = columns or Columns()
    plan = make_plan(
        measure(find_shards([str(uri)]), columns, str(output)), Listing(finished=(), remains=()), "c" * 10, chunk_size
    )
    found = [sample for chunk in plan.chunks for sample in read_chunk(chunk, columns)]
    assert len(found) == plan.samples
    return found


def problem(sample: Sample) -> str:
    return "" if sample.problem is None else sample.problem.reason.split(":")[0]


def test_tar_samples(tmp_path: Path) -> None:
    members = [
        ("a.txt", b" first "),
        ("a.png", b"1"),
        ("a.jpg", b"2"),
        ("b.seg.png", b"3"),
        ("b.json", b'{"caption": "second"}'),
        ("c.txt", b"no picture"),
        ("d.jpg", b""),
        ("a.jpg", b"4"),
    ]
    path = write_tar(tmp_path / "x.tar", members)
    found = read_all(path, tmp_path / "out")
    assert [(sample.key, sample.image, sample.caption) for sample in found[:2]] == [
        ("a", b"2", "first"),
        ("b", b"3", "second"),
    ]
    assert [problem(sample) for sample in found] == [
        "",
        "",
        "no image member",
        "the image file is empty",
        "duplicate key",
    ]
    named = read_all(path, tmp_path / "out", Columns(image="png"))
    assert [sample.image for sample in named] == [b"1", b"", b"", b"", b""]


def test_parquet_samples(tmp_path: Path) -> None:
    columns = {"image": [b"1", None, b"", b"4", b"5"], "key": ["a", "b", "c", "a", None], "caption": ["x", *[None] * 4]}
    found = read_all(write_parquet(tmp_path / "x.parquet", columns), tmp_path / "out")
    assert [sample.key for sample in found] == ["a", "b", "c", "a", "x/00000004"]
    assert [problem(sample) for sample in found] == [
        "",
        "column image is null or empty",
        "column image is null or empty",
        "duplicate key",
        "column key is null",
    ]
    assert found[0].caption == "x"


def test_parquet_rows_without_keys_are_numbered(tmp_path: Path) -> None:
    found = read_all(write_parquet(tmp_path / "x.parquet", {"image": [b"1", b"2"]}), tmp_path / "out")
    assert [sample.key for sample in found] == ["x/00000000", "x/00000001"]


def test_folder_samples(tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "a.txt": b"one", "sub/a.png": b"2", "sub/a.json": b'{"text": "two"}', "e.gif": b""}
    found = read_all(write_folder(tmp_path / "in", files), tmp_path / "out")
    assert [(sample.key, sample.caption) for sample in found] == [("a.jpg", "one"), ("e.gif", ""), ("sub/a.png", "two")]
    assert problem(found[1]) == "the image file is empty"


def test_unreadable_shards_are_one_sample(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.tar": b"junk" * 500, "b.parquet": b"junk", "c.tgz": b"junk"})
    found = read_all(tmp_path / "in", tmp_path / "out")
    assert [(sample.key, sample.problem.stage) for sample in found if sample.problem] == [
        ("a.tar#rest", "shard"),
        ("b.parquet#rest", "shard"),
        ("c.tgz#rest", "shard"),
    ]
