"""Samples of tars, Parquet files and folders: images, captions, and problems."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import ShardChangedError
from pipelines.planning.plan import make_plan
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards, Repeated, Source
from pipelines.samples import Chunk, ChunkFile, Columns, Sample
from pipelines.storage.store import FsspecStore
from tests.support.inputs import write_folder, write_parquet, write_tar


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
        ("c.txt", b"no image"),
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


def changing(path: Path, content: bytes, whole: list[Sample], samples: Iterator[Sample]) -> None:
    """Read the first sample, replace the shard as a publisher does, and read the others."""
    whole.append(next(samples))
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)
    whole.extend(samples)


def written_shards(folder: Path) -> dict[str, tuple[Path, bytes]]:
    """Return format -> (shard, other content with the same number of samples)."""
    write_folder(folder, {"1.jpg": b"1"})
    found = {
        "tar": write_tar(folder / "a.tar", [(f"{number}.jpg", b"1") for number in range(9)]),
        "parquet": write_parquet(folder / "a.parquet", {"image": [b"1"] * 9}),
        "jsonl": write_folder(folder, {"a.jsonl": b'{"image": "1.jpg"}\n' * 9}) / "a.jsonl",
    }
    others = {
        "tar": write_tar(folder / "b" / "a.tar", [(f"{number}.jpg", b"22") for number in range(9)]),
        "parquet": write_parquet(folder / "b" / "a.parquet", {"image": [b"22"] * 9}),
        "jsonl": write_folder(folder / "b", {"a.jsonl": b'{"image":  "1.jpg"}\n' * 9}) / "a.jsonl",
    }
    return {name: (path, others[name].read_bytes()) for name, path in found.items()}


@pytest.mark.parametrize("name", ["tar", "parquet", "jsonl"])
@pytest.mark.parametrize("copies", [1, 2])
def test_a_shard_rewritten_while_it_is_read_fails_its_chunk(tmp_path: Path, name: str, copies: int) -> None:
    path, other = written_shards(tmp_path)[name]
    source: Source = ImageShards(columns=Columns())
    if copies > 1:
        source = Repeated(source=source, copies=copies, option="--images-per-row")
    output = str(tmp_path / "out")
    (chunk,) = make_plan(
        source.measure(source.find([str(path)], output), output, None), Listing(finished=(), remains=()), "c" * 10, 99
    ).chunks
    assert len(list(source.read(chunk))) == 9 * copies
    with pytest.raises(ShardChangedError, match=f"{path.name} has changed while it was read; the same command"):
        changing(path, other, [], source.read(chunk))
    with pytest.raises(ShardChangedError):
        list(source.read(chunk))
    unknown = dataclasses.replace(chunk, shard_fingerprint="")
    assert len(list(source.read(unknown))) == 9 * copies


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.parquet"])
def test_prompts_rewritten_while_they_are_read_fail_their_chunk(tmp_path: Path, name: str) -> None:
    contents = {"p.txt": [b"a\nb\nc", b"aa\nb\nc"], "p.jsonl": [b'"a"\n"b"\n"c"', b'"aa"\n"b"\n"c"']}
    for folder, prompts in (("in", ["a", "b", "c"]), ("other", ["aa", "b", "c"])):
        write_parquet(tmp_path / folder / "p.parquet", {"prompt": prompts})
    contents["p.parquet"] = [(tmp_path / folder / "p.parquet").read_bytes() for folder in ("in", "other")]
    write_folder(tmp_path / "in", {name: contents[name][0]})
    source, output = PromptFiles(), str(tmp_path / "out")
    shards = source.find([str(tmp_path / "in" / name)], output)
    (chunk,) = make_plan(source.measure(shards, output, None), Listing(finished=(), remains=()), "c" * 10, 99).chunks
    assert len(list(source.read(chunk))) == 3
    with pytest.raises(ShardChangedError):
        changing(tmp_path / "in" / name, contents[name][1], [], source.read(chunk))


@pytest.mark.parametrize("name", ["a.jpg", "a.txt"])
def test_a_loose_image_that_was_rewritten_fails_its_chunk(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "in", {"a.jpg": b"1", "a.txt": b"one", "b.jpg": b"2"})
    source, output = ImageShards(columns=Columns()), str(tmp_path / "out")
    measured = source.measure(source.find([str(folder)], output), output, None)
    (chunk,) = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, 99).chunks
    chunk = Chunk.from_json(chunk.to_json())
    assert [sample.caption for sample in source.read(chunk)] == ["one", ""]
    (folder / name).write_bytes(b"another")
    with pytest.raises(ShardChangedError, match=f"{name} has changed while it was read"):
        list(source.read(chunk))
    (folder / name).unlink()
    gone = list(source.read(chunk))
    assert [sample.problem is None for sample in gone] == [name == "a.txt", True]


@dataclasses.dataclass(frozen=True)
class OverwritingStore(FsspecStore):
    """A store in which another process overwrites a file in place as soon as it has been opened."""

    path: Path = Path()

    def read_bytes(self, uri: str, limit_bytes: int | None = None) -> bytes:
        content = super().read_bytes(uri, limit_bytes)
        if uri == str(self.path):
            self.path.write_bytes(b"another")
        return content


@pytest.mark.parametrize("name", ["a.jpg", "a.txt"])
def test_a_loose_image_that_is_overwritten_while_it_is_read_fails_its_chunk(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "in", {"a.jpg": b"1", "a.txt": b"one", "b.jpg": b"2"})
    source, output = ImageShards(columns=Columns()), str(tmp_path / "out")
    measured = source.measure(source.find([str(folder)], output), output, None)
    (chunk,) = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, 99).chunks
    with pytest.raises(ShardChangedError, match="a.jpg has changed while it was read"):
        list(read_chunk(chunk, Columns(), OverwritingStore(path=folder / name)))


def test_chunks_travel_as_text() -> None:
    chunk = Chunk(
        name="a", shard_uri="/a", shard_format="tar", shard_fingerprint="f", start=0, stop=2, base_data="d",
        files=(ChunkFile(uri="/a/1", fingerprint="g", sidecars=("/a/1.txt",)),), only=(1,), duplicates=(0,),
    )  # fmt: skip
    assert Chunk.from_json(chunk.to_json()) == chunk
