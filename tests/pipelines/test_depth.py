"""The depth stages without Ray: seeds, micro-batches, a block from reading to publication."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import layout
from pipelines.depth import DepthBlockModel, MicroBatches, PublishDepth, ReadPictures, row_seed
from pipelines.errors import SampleError
from pipelines.inputs import find_shards
from pipelines.plan import make_plan, measure
from pipelines.samples import Columns
from tests.fake_depth import FakeDepth
from tests.inputs import all_rows, picture, samples, write_tar


def test_a_row_seed_is_the_same_everywhere() -> None:
    assert row_seed(0, "00000") == 3222486875533972245
    assert len({row_seed(run, key) for run in range(10) for key in "abc"}) == 30
    assert all(0 <= row_seed(run, "x") < 2**63 for run in range(100))


class _Memory:
    """An estimator that fits `rows` rows at once."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.tried: list[int] = []

    def __call__(self, batch: list[int]) -> list[int]:
        self.tried.append(len(batch))
        if len(batch) > self.rows:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [row * 10 for row in batch]


def test_micro_batches_are_halved_and_remembered() -> None:
    batches, memory = MicroBatches(8), _Memory(3)
    assert batches.run(range(10), (64, 64), memory) == [(row, row * 10) for row in range(10)]
    assert memory.tried == [8, 4, 2, 2, 2, 2, 2]
    assert batches.limit(64 * 64) == batches.limit(128 * 128) == 2
    assert batches.limit(32 * 32) == 8


def test_a_row_that_never_fits_becomes_an_error() -> None:
    results = MicroBatches(2).run([0, 1], (64, 64), _Memory(0))
    assert all(isinstance(result, SampleError) for _, result in results)
    with pytest.raises(RuntimeError, match="shape"):
        MicroBatches(2).run([0], (64, 64), _raise_shape_error)


def _raise_shape_error(batch: list[int]) -> list[int]:
    raise RuntimeError("shape mismatch")


def test_one_chunk_from_reading_to_publication(tmp_path: Path) -> None:
    members = [*samples(3), ("bad.jpg", b"hello"), ("tall.bmp", picture(7, (32, 48), "BMP"))]
    write_tar(tmp_path / "in" / "a.tar", members)
    output = str(tmp_path / "out")
    published = layout.published(output)
    (chunk,) = make_plan(
        measure(find_shards([str(tmp_path / "in")]), Columns(), output), published, "c" * 10, 10
    ).chunks
    block = ReadPictures(columns=Columns(), max_pixels=10**6)(chunk)
    block = DepthBlockModel(FakeDepth(), run_seed=0, batch_size=2)(block)
    receipt = PublishDepth(output=output, provenance={"model": "fake"}, run_seed=0)(block)
    assert (receipt["ok"], receipt["bad"]) == (4, 1)
    rows = {row["key"]: row for row in all_rows(tmp_path / "out", "data")}
    assert rows["00001"]["image"]["bytes"] == members[2][1]
    assert rows["00001"]["caption"] == "caption 1"
    assert rows["00001"]["seed"] == row_seed(0, "00001")
    assert (rows["tall"]["width"], rows["tall"]["height"]) == (32, 48)
    assert rows["tall"]["image"]["bytes"][:4] == b"\x89PNG"
    (error,) = all_rows(tmp_path / "out", "errors")
    assert (error["key"], error["position"], error["stage"]) == ("bad", 3, "decode")
    assert layout.published(output).marks[chunk.name].ok == 4


def test_a_chunk_of_bad_samples_only_has_no_data_file(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [("a.jpg", b"x"), ("b.jpg", b"y")])
    output = str(tmp_path / "out")
    measured = measure(find_shards([str(tmp_path / "in")]), Columns(), output)
    (chunk,) = make_plan(measured, layout.published(output), "c" * 10, 10).chunks
    block = DepthBlockModel(FakeDepth(), run_seed=0, batch_size=2)(
        ReadPictures(columns=Columns(), max_pixels=10**6)(chunk)
    )
    assert PublishDepth(output=output, provenance={}, run_seed=0)(block)["bad"] == 2
    assert not (tmp_path / "out" / "data").exists()
    assert len(all_rows(tmp_path / "out", "errors")) == 2


def test_media_columns_are_plain_and_uncompressed(tmp_path: Path) -> None:
    test_one_chunk_from_reading_to_publication(tmp_path)
    (path,) = (tmp_path / "out" / "data").iterdir()
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    for name in ("image.bytes", "depth.bytes"):
        assert columns[name].compression == "UNCOMPRESSED"
        assert set(columns[name].encodings) == {"PLAIN", "RLE"}
        assert not columns[name].is_stats_set
    assert columns["model"].compression == "ZSTD"
