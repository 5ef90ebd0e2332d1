"""The chunk size of an output: decided once, by whoever comes first."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import layout, storage
from pipelines.agreement import agree_on_chunk_size, create_once, doubled_files


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_later_runs_take_over_the_first_ones_chunk_size(scheme: str, tmp_path: Path) -> None:
    output = str(tmp_path) if scheme == "file" else f"memory://agreement-{tmp_path.name}"
    told: list[str] = []
    assert agree_on_chunk_size(output, 64, told.append) == 64
    assert agree_on_chunk_size(output, 64, told.append) == 64
    assert told == []
    assert agree_on_chunk_size(output, 8, told.append) == 64
    assert "--chunk-size 8 is not used" in told[0]


def test_of_many_at_once_one_decides_and_all_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        agreed = list(pool.map(lambda size: agree_on_chunk_size(str(tmp_path), size, lambda text: None), range(1, 60)))
    assert len(set(agreed)) == 1
    assert [path.name for path in (tmp_path / "_chunks").iterdir()] == ["chunk-size.json"]


def test_a_chunk_inside_another_goes(tmp_path: Path) -> None:
    output = str(tmp_path)
    for shard, start, stop in [("a", 0, 10), ("a", 10, 12), ("a", 10, 20), ("b", 10, 12), ("b", 0, 10)]:
        name = layout.chunk_name(shard, shard, "f" * 10, start, stop, "c" * 10)
        storage.publish(layout.data_uri(output, name), b"rows")
        storage.publish(layout.mark_uri(output, name, stop - start, 0), b"{}")
    data, mark = doubled_files(layout.published(output))
    assert data.startswith(f"{output}/data/a-")
    assert "-0000010-0000012-" in data
    assert mark == layout.mark_uri(output, data.rsplit("/", 1)[-1].removesuffix(".parquet"), 2, 0)


def test_what_is_there_stays(tmp_path: Path) -> None:
    uri = str(tmp_path / "a" / "b")
    create_once(uri, b"first")
    create_once(uri, b"second")
    assert storage.read_bytes(uri) == b"first"


def test_a_place_where_nobody_may_write_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        create_once(str(tmp_path / "file" / "a"), b"content")
