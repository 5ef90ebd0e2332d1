"""Written tars are readable and reproducible, and writing is resumable."""

from functools import partial
from pathlib import Path

from pipelines.dataset.tar_bytes import tar_bytes
from pipelines.readers.tar import index_tar, read_tar
from pipelines.scenes.tar_writer import TarTask, unwritten, write_tar_shard, write_tar_shards
from tests.support.stages import numbers


def tasks(folder: Path) -> list[TarTask]:
    return [TarTask(uri=f"{folder}/{shard:05d}.tar", make=partial(numbers, shard * 10, 10)) for shard in range(3)]


def test_the_same_samples_give_the_same_bytes() -> None:
    assert tar_bytes(numbers(0, 3)) == tar_bytes(numbers(0, 3)) != tar_bytes(numbers(1, 3))


def test_missing_shards_are_written(ray_cluster: None, tmp_path: Path) -> None:
    assert write_tar_shard(tasks(tmp_path)[1])["samples"] == 10
    assert [task.uri for task in unwritten(tasks(tmp_path))] == [f"{tmp_path}/00000.tar", f"{tmp_path}/00002.tar"]
    assert sorted(receipt["uri"] for receipt in write_tar_shards(tasks(tmp_path), cpus_per_task=0.5)) == [
        f"{tmp_path}/00000.tar",
        f"{tmp_path}/00002.tar",
    ]
    assert index_tar(f"{tmp_path}/00002.tar", compressed=False).samples == 10
    assert next(iter(read_tar(f"{tmp_path}/00002.tar", False, 3, 4)))[1] == "000023"
    assert list(write_tar_shards(tasks(tmp_path))) == []
