"""Measuring shards: totals and limits, empty and damaged shards."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import ShardChangedError
from pipelines.planning.plan import make_plan
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.shard_index import MeasuredShard
from pipelines.readers.sources import ImageShards, Repeated, Source
from pipelines.samples import Chunk, Columns, Sample
from tests.support.inputs import samples, write_folder, write_parquet, write_tar

IMAGE_SHARDS = ImageShards(columns=Columns())


def counted(measured: Sequence[MeasuredShard]) -> dict[str, tuple[int, int]]:
    """Return shard -> (samples of this run, all positions)."""
    return {found.shard.stem: (found.samples, found.total) for found in measured}


def damaged_tar(path: Path, readable: int = 3) -> Path:
    """Write a tar that is cut short after this many samples."""
    whole = write_tar(path, [(f"{number}.jpg", b"x" * 300) for number in range(readable + 2)])
    path.write_bytes(whole.read_bytes()[: 1024 * readable + 100])
    return path


def inputs(folder: Path) -> Path:
    """Write shards a to e: 3 samples, none, damaged after 3, 4 rows, and entirely unreadable."""
    write_tar(folder / "a.tar", samples(3))
    write_tar(folder / "b.tar", [])
    damaged_tar(folder / "c.tar")
    write_parquet(folder / "d.parquet", {"image": [b"1", b"2", b"3", b"4"]})
    write_folder(folder, {"e.parquet": b"junk"})
    return folder


def test_a_limit_shortens_the_run_and_not_the_shard(tmp_path: Path) -> None:
    folder = str(inputs(tmp_path / "in"))

    def measured(limit: int | None) -> dict[str, tuple[int, int]]:
        return counted(
            IMAGE_SHARDS.measure(IMAGE_SHARDS.find([folder], str(tmp_path / "out")), str(tmp_path / "out"), limit)
        )

    assert measured(None) == {"a": (3, 3), "b": (0, 0), "c": (4, 4), "d": (4, 4), "e": (1, 1)}
    assert measured(5) == {"a": (3, 3), "b": (0, 0), "c": (2, 4)}
    assert measured(7) == {"a": (3, 3), "b": (0, 0), "c": (4, 4)}
    assert measured(9) == {"a": (3, 3), "b": (0, 0), "c": (4, 4), "d": (2, 4)}


def test_copies_multiply_what_can_be_read(tmp_path: Path) -> None:
    source = Repeated(source=IMAGE_SHARDS, copies=3, option="--images-per-row")
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
    found = read_all(IMAGE_SHARDS, path, tmp_path / "out", limit=limit)
    assert [sample.key for sample in found] == ["0", "1", "2", "c.tar#rest"][:limit]
    (measured,) = IMAGE_SHARDS.measure(IMAGE_SHARDS.find([str(path)], ""), str(tmp_path / "out"), limit)
    assert "cannot be read beyond sample 3" in measured.damage


def test_a_shard_that_has_gone_since_it_was_listed_is_a_change_and_no_damage(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(3))
    write_parquet(tmp_path / "b.parquet", {"image": [b"1"], "prompt": ["x"]})
    write_folder(tmp_path, {"c.jsonl": b"{}", "d.txt": b"x"})
    sources: list[tuple[Source, str]] = [
        (IMAGE_SHARDS, "a.tar"),
        (IMAGE_SHARDS, "b.parquet"),
        (IMAGE_SHARDS, "c.jsonl"),
    ]
    for source, name in [*sources, (PromptFiles(), "b.parquet"), (PromptFiles(), "d.txt")]:
        shards = source.find([str(tmp_path / name)], "")
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(ShardChangedError, match=f"{name} has gone since it was listed"):
            source.measure(shards, str(tmp_path / "out"), None)
        (tmp_path / "away").rename(tmp_path / name)
