"""Compressed tars: seeking with a gzip index, files of several gzip members, and damage."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset.layout import Listing
from pipelines.planning.plan import make_plan
from pipelines.readers import gzip_index, strict_tar
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards, Source
from pipelines.readers.tar import index_tar, is_compressed, read_tar
from pipelines.samples import Chunk, Columns, Sample
from tests.support.inputs import samples, write_tar

IMAGE_SHARDS = ImageShards(columns=Columns())


def read_all(source: Source, path: Path, output: Path, chunk_size: int = 4, limit: int | None = None) -> list[Sample]:
    measured = source.measure(source.find([str(path)], str(output)), str(output), limit)
    chunks = make_plan(measured, Listing(finished=(), remains=()), "c" * 16, chunk_size).chunks
    return [sample for chunk in chunks for sample in source.read(Chunk.from_json(chunk.to_json()))]


def index_of(output: Path) -> Path:
    (path,) = (output / "_chunks" / "index").glob("*.json")
    return path


def compressed_tar(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Write a compressed tar of 100 samples that gets a gzip index."""
    pytest.importorskip("indexed_gzip")
    monkeypatch.setattr(gzip_index, "SPACING_BYTES", 100_000)
    rng = np.random.default_rng(0)
    members = [(f"{number:03d}.jpg", rng.bytes(20_000)) for number in range(100)]
    write_tar(path, members, compress=True)
    return members


def decompressed_from_start(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    read = strict_tar.DecompressedStream.read
    monkeypatch.setattr(
        strict_tar.DecompressedStream,
        "read",
        lambda self, size: (content := read(self, size), sizes.append(len(content)))[0],
    )
    return sizes


def contents(found: Sequence[Sample]) -> list[tuple[str, bytes]]:
    return [(f"{sample.key}.jpg", sample.image) for sample in found]


def test_a_moved_output_keeps_its_gzip_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = compressed_tar(tmp_path / "a.tar.gz", monkeypatch)
    measure(find_shards([f"{tmp_path}/a.tar.gz"]), Columns(), str(tmp_path / "out"))
    name = json.loads(index_of(tmp_path / "out").read_bytes())["gzip_points"]
    assert (tmp_path / "out" / "_chunks" / "index" / name).exists()
    (tmp_path / "out").rename(tmp_path / "moved")
    from_start = decompressed_from_start(monkeypatch)
    assert contents(read_all(IMAGE_SHARDS, tmp_path / "a.tar.gz", tmp_path / "moved", 10)) == members
    assert from_start == []


@pytest.mark.parametrize("how", ["gone", "cut", "changed", "of another"])
def test_an_unusable_gzip_index_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    members = compressed_tar(tmp_path / "a.tar.gz", monkeypatch)
    measure(find_shards([f"{tmp_path}/a.tar.gz"]), Columns(), str(tmp_path / "out"))
    (kept,) = (tmp_path / "out" / "_chunks" / "index").glob("*.gzidx")
    content = kept.read_bytes()
    if how == "gone":
        kept.unlink()
    elif how == "cut":
        kept.write_bytes(content[:-1000])
    elif how == "changed":
        middle = len(content) // 2
        kept.write_bytes(content[:middle] + bytes(100) + content[middle + 100 :])
    else:
        write_tar(tmp_path / "b.tar.gz", members[50:], compress=True)
        other = gzip_index.build_gzip_index(f"{tmp_path}/b.tar.gz", 1_000_000)
        name = gzip_index.gzip_index_name(other, "x")
        kept.with_name(name).write_bytes(other)
        index = index_of(tmp_path / "out")
        index.write_text(index.read_text().replace(kept.name, name))
    from_start = decompressed_from_start(monkeypatch)
    assert contents(read_all(IMAGE_SHARDS, tmp_path / "a.tar.gz", tmp_path / "out", 10)) == members
    assert from_start != []


@pytest.mark.parametrize("is_installed", [True, False])
def test_chunks_of_compressed_tars_are_reached_by_seeking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    pytest.importorskip("indexed_gzip")
    monkeypatch.setattr(gzip_index, "SPACING_BYTES", 100_000)
    if not is_installed:
        monkeypatch.setattr(gzip_index, "IndexedGzipFile", None)
    rng = np.random.default_rng(0)
    path = write_tar(tmp_path / "a.tar.gz", [(f"{n:03d}.jpg", rng.bytes(20_000)) for n in range(100)], compress=True)
    measured = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    assert (
        measure(find_shards([str(path)]), Columns(), str(tmp_path / "out")) == measured
    )  # the second time from the kept index
    plan = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, 10)
    from_start = decompressed_from_start(monkeypatch)
    found = [sample for chunk in plan.chunks for sample in read_chunk(Chunk.from_json(chunk.to_json()), Columns())]
    rng = np.random.default_rng(0)
    assert [(sample.key, sample.image) for sample in found] == [(f"{n:03d}", rng.bytes(20_000)) for n in range(100)]
    assert bool(from_start) != is_installed
    if is_installed:  # planned with the package, read without it
        monkeypatch.setattr(gzip_index, "IndexedGzipFile", None)
        assert [sample.key for sample in read_chunk(plan.chunks[7], Columns())] == [f"{n:03d}" for n in range(70, 80)]


@pytest.mark.parametrize("pieces", [1, 3])
def test_gzip_in_several_pieces_is_one_tar(tmp_path: Path, pieces: int) -> None:
    """Pigz, bgzip and plain concatenation write such files."""
    raw = write_tar(tmp_path / "whole.tar", samples(20)).read_bytes()
    cut = -(-len(raw) // pieces)
    path = tmp_path / "a.tgz"
    path.write_bytes(b"".join(gzip.compress(raw[at : at + cut]) for at in range(0, len(raw), cut)))
    assert (is_compressed(str(path)), is_compressed(str(tmp_path / "whole.tar"))) == (True, False)
    assert index_tar(str(path), True).damage == ""
    assert [key for _, key, _ in read_tar(str(path), True, 0, 20)] == [f"{number:05d}" for number in range(20)]


def test_damage_within_gzip_costs_only_what_is_behind_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = write_tar(tmp_path / "whole.tar", [(f"{n:03d}.jpg", rng.bytes(50_000)) for n in range(100)]).read_bytes()
    packed = gzip.compress(raw, 1)
    path = tmp_path / "a.tgz"
    for name, broken, readable in [
        ("cut short", packed[: len(packed) // 2], range(48, 51)),
        ("checksum", packed[:-8] + b"\0" * 8, range(100, 101)),
        ("garbage", packed[: len(packed) // 2] + b"\xff" * 5000, range(40, 51)),
    ]:
        path.write_bytes(broken)
        index = index_tar(str(path), True)
        assert index.samples in readable, name
        assert index.damage
        found = list(read_tar(str(path), True, index.samples - 3, index.samples))
        assert len(found) == 3
