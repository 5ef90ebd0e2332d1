"""Measuring shards: totals and limits, empty and damaged shards, and the indexes of tars that are kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import ShardChangedError
from pipelines.planning.plan import make_plan
from pipelines.readers import gzip_index, strict_tar
from pipelines.readers.measure import measure
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.shard_index import Measured
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import PictureShards, Repeated, Source
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.store import FILES, FsspecStore
from tests.support.inputs import samples, write_folder, write_parquet, write_tar

PICTURES = PictureShards(columns=Columns())


def counted(measured: Sequence[Measured]) -> dict[str, tuple[int, int]]:
    """Shard -> (samples of this run, all positions)."""
    return {found.shard.stem: (found.samples, found.total) for found in measured}


def damaged_tar(path: Path, readable: int = 3) -> Path:
    """A tar that is cut short behind so many samples."""
    whole = write_tar(path, [(f"{number}.jpg", b"x" * 300) for number in range(readable + 2)])
    path.write_bytes(whole.read_bytes()[: 1024 * readable + 100])
    return path


def inputs(folder: Path) -> Path:
    """Shards a to e: 3 samples, none, damaged behind 3, 4 rows, not readable at all."""
    write_tar(folder / "a.tar", samples(3))
    write_tar(folder / "b.tar", [])
    damaged_tar(folder / "c.tar")
    write_parquet(folder / "d.parquet", {"image": [b"1", b"2", b"3", b"4"]})
    write_folder(folder, {"e.parquet": b"junk"})
    return folder


def test_a_limit_shortens_the_run_and_not_the_shard(tmp_path: Path) -> None:
    folder = str(inputs(tmp_path / "in"))

    def measured(limit: int | None) -> dict[str, tuple[int, int]]:
        return counted(PICTURES.measure(PICTURES.find([folder], str(tmp_path / "out")), str(tmp_path / "out"), limit))

    assert measured(None) == {"a": (3, 3), "b": (0, 0), "c": (4, 4), "d": (4, 4), "e": (1, 1)}
    assert measured(5) == {"a": (3, 3), "b": (0, 0), "c": (2, 4)}
    assert measured(7) == {"a": (3, 3), "b": (0, 0), "c": (4, 4)}
    assert measured(9) == {"a": (3, 3), "b": (0, 0), "c": (4, 4), "d": (2, 4)}


def test_copies_multiply_what_can_be_read(tmp_path: Path) -> None:
    source = Repeated(source=PICTURES, copies=3, option="--images-per-row")
    shards = source.find([str(inputs(tmp_path / "in"))], str(tmp_path / "out"))
    whole = counted(source.measure(shards, str(tmp_path / "out"), None))
    assert whole == {"a": (9, 9), "b": (0, 0), "c": (10, 10), "d": (12, 12), "e": (1, 1)}
    shortened = counted(source.measure(shards, str(tmp_path / "out"), 5))
    assert shortened == {"a": (9, 9), "b": (0, 0), "c": (6, 10)}


def test_prompts_are_measured_alike(tmp_path: Path) -> None:
    write_folder(
        tmp_path / "in", {"a.txt": b"one\ntwo\nthree", "b.txt": b"\n", "c.jsonl": b'"x"', "d.parquet": b"junk"}
    )
    source = PromptFiles()
    shards = source.find([str(tmp_path / "in")], str(tmp_path / "out"))
    assert counted(source.measure(shards, "", None)) == {"a": (3, 3), "b": (0, 0), "c": (1, 1), "d": (1, 1)}
    assert counted(source.measure(shards, "", 2)) == {"a": (2, 3), "b": (0, 0)}


def read_all(source: Source, path: Path, output: Path, chunk_size: int = 4, limit: int | None = None) -> list[Sample]:
    measured = source.measure(source.find([str(path)], str(output)), str(output), limit)
    chunks = make_plan(measured, Listing(finished=(), remains=()), "c" * 16, chunk_size).chunks
    return [sample for chunk in chunks for sample in source.read(Chunk.from_json(chunk.to_json()))]


@pytest.mark.parametrize("limit", [2, 3, 4, 9])
def test_the_rest_of_a_damaged_tar_is_in_the_run_that_reaches_it(tmp_path: Path, limit: int) -> None:
    path = damaged_tar(tmp_path / "c.tar")
    found = read_all(PICTURES, path, tmp_path / "out", limit=limit)
    assert [sample.key for sample in found] == ["0", "1", "2", "c.tar#rest"][:limit]
    (measured,) = PICTURES.measure(PICTURES.find([str(path)], ""), str(tmp_path / "out"), limit)
    assert "cannot be read beyond sample 3" in measured.damage


class Counting(FsspecStore):
    """Counts what is opened of a suffix."""

    opened: ClassVar[list[str]] = []

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        self.opened.append(uri)
        return super().open_read(uri, block_size_bytes)


def index_of(output: Path) -> Path:
    (path,) = (output / "_chunks" / "index").glob("*.json")
    return path


def test_a_kept_index_is_used(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(40))
    once = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    store = Counting()
    store.opened.clear()
    assert measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"), store=store) == once
    assert store.opened == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"samples": 40, "seek',
        b"[]",
        b"null",
        b'{"samples": 40}',
        b"\xff\xfe",
        b'{"samples": -1, "seek_bytes": [], "duplicates": [], "damage": "", "gzip_points": "", "compressed": false}',
        b'{"samples": 40, "seek_bytes": [0], "duplicates": [], "damage": "", "gzip_points": "", "compressed": false}',
        b'{"samples": 40, "seek_bytes": ["a", 1], "duplicates": [], "damage": "", "gzip_points": "", "compressed": 0}',
        b'{"samples": 4, "seek_bytes": [0], "duplicates": [], "damage": null, "gzip_points": "", "compressed": false}',
        b'{"samples": 4, "seek_bytes": [0], "duplicates": [], "damage": "", "gzip_points": 3, "compressed": false}',
    ],
)
def test_a_kept_index_that_is_none_is_made_again(tmp_path: Path, content: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", samples(40))
    once = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    index = index_of(tmp_path / "out")
    good = index.read_bytes()
    index.write_bytes(content)
    assert measure(find_shards([str(path)]), Columns(), str(tmp_path / "out")) == once
    assert index.read_bytes() == good


def test_the_index_of_another_content_is_not_kept(tmp_path: Path) -> None:
    """Else it would be taken for that of the content which was listed, when that comes back."""
    path = write_tar(tmp_path / "a.tar", samples(3))
    (shard,) = find_shards([str(path)])
    other = write_tar(tmp_path / "b.tar", samples(5)).read_bytes()

    class Overwriting(FsspecStore):
        opened = 0

        def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
            file = super().open_read(uri, block_size_bytes)
            Overwriting.opened += 1
            if Overwriting.opened == 2:  # first its format is looked at, then its headers
                path.write_bytes(other)
            return file

    (found,) = measure([shard], Columns(), str(tmp_path / "out"), store=Overwriting())
    assert found.samples == 5
    assert not (tmp_path / "out").exists()


def compressed_tar(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """A compressed tar of 100 samples that can be entered."""
    pytest.importorskip("indexed_gzip")
    monkeypatch.setattr(gzip_index, "SPACING_BYTES", 100_000)
    rng = np.random.default_rng(0)
    members = [(f"{number:03d}.jpg", rng.bytes(20_000)) for number in range(100)]
    write_tar(path, members, compress=True)
    return members


def unpacked_from_the_start(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    read = strict_tar.Unpacked.read
    monkeypatch.setattr(
        strict_tar.Unpacked, "read", lambda self, size: (content := read(self, size), sizes.append(len(content)))[0]
    )
    return sizes


def contents(found: Sequence[Sample]) -> list[tuple[str, bytes]]:
    return [(f"{sample.key}.jpg", sample.image) for sample in found]


def test_a_moved_output_still_enters_compressed_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = compressed_tar(tmp_path / "a.tar.gz", monkeypatch)
    measure(find_shards([f"{tmp_path}/a.tar.gz"]), Columns(), str(tmp_path / "out"))
    name = json.loads(index_of(tmp_path / "out").read_bytes())["gzip_points"]
    assert (tmp_path / "out" / "_chunks" / "index" / name).exists()
    (tmp_path / "out").rename(tmp_path / "moved")
    from_start = unpacked_from_the_start(monkeypatch)
    assert contents(read_all(PICTURES, tmp_path / "a.tar.gz", tmp_path / "moved", 10)) == members
    assert from_start == []


@pytest.mark.parametrize("how", ["gone", "cut", "changed", "of another"])
def test_points_that_cannot_be_used_cost_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    members = compressed_tar(tmp_path / "a.tar.gz", monkeypatch)
    measure(find_shards([f"{tmp_path}/a.tar.gz"]), Columns(), str(tmp_path / "out"))
    (points,) = (tmp_path / "out" / "_chunks" / "index").glob("*.gzidx")
    content = points.read_bytes()
    if how == "gone":
        points.unlink()
    elif how == "cut":
        points.write_bytes(content[:-1000])
    elif how == "changed":
        middle = len(content) // 2
        points.write_bytes(content[:middle] + bytes(100) + content[middle + 100 :])
    else:
        write_tar(tmp_path / "b.tar.gz", members[50:], compress=True)
        other = gzip_index.find_points(f"{tmp_path}/b.tar.gz", 1_000_000)
        name = gzip_index.points_name(other, "x")
        points.with_name(name).write_bytes(other)
        index = index_of(tmp_path / "out")
        index.write_text(index.read_text().replace(points.name, name))
    from_start = unpacked_from_the_start(monkeypatch)
    assert contents(read_all(PICTURES, tmp_path / "a.tar.gz", tmp_path / "out", 10)) == members
    assert from_start != []


def test_an_index_is_kept_wherever_the_output_is(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(3))
    output = f"memory://index-{tmp_path.name}"
    once = measure(find_shards([str(path)]), Columns(), output)
    assert len(FILES.list_uris(f"{output}/_chunks/index")) == 1
    assert measure(find_shards([str(path)]), Columns(), output) == once


def test_a_shard_that_has_gone_since_it_was_listed_is_a_change_and_no_damage(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(3))
    write_parquet(tmp_path / "b.parquet", {"image": [b"1"], "prompt": ["x"]})
    write_folder(tmp_path, {"c.jsonl": b"{}", "d.txt": b"x"})
    sources: list[tuple[Source, str]] = [(PICTURES, "a.tar"), (PICTURES, "b.parquet"), (PICTURES, "c.jsonl")]
    for source, name in [*sources, (PromptFiles(), "b.parquet"), (PromptFiles(), "d.txt")]:
        shards = source.find([str(tmp_path / name)], "")
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(ShardChangedError, match=f"{name} has gone since it was listed"):
            source.measure(shards, str(tmp_path / "out"), None)
        (tmp_path / "away").rename(tmp_path / name)
