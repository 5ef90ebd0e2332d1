"""Parquet files joined to one (`cat a.parquet b.parquet`), where the last footer points at the pages of the first."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.layout import Listing
from pipelines.planning.plan import make_plan
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.samples import Columns, Sample


def parquet(path: Path, seed: int, **options: Any) -> bytes:
    """Return a file. Files with different seeds have different bytes at the same places."""
    rng = np.random.default_rng(seed)
    pq.write_table(pa.table({"image": [rng.bytes(3000) for _ in range(5)]}), path, **options)
    return path.read_bytes()


def read(path: Path, output: Path) -> list[Sample]:
    plan = make_plan(
        measure(find_shards([str(path)]), Columns(), str(output)), Listing(finished=(), remains=()), "c" * 10, 10
    )
    return [sample for chunk in plan.chunks for sample in read_chunk(chunk, Columns())]


@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"use_dictionary": False, "row_group_size": 2}])
def test_joined_files_are_told_and_single_ones_are_read(tmp_path: Path, options: dict[str, object]) -> None:
    first, second = (parquet(tmp_path / f"{seed}.parquet", seed, **options) for seed in (1, 2))
    assert len(first) == len(second)
    for count, content in enumerate((first, first + second, first + second + first), 1):
        path = tmp_path / "in" / f"{count}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        found = read(path, tmp_path / "out")
        if count == 1:
            assert [sample.problem for sample in found] == [None] * 5
        else:
            (sample,) = found
            assert sample.problem is not None and "several Parquet files joined to one" in sample.problem.reason
