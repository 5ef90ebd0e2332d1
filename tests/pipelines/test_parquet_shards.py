"""Parquet: which column is the picture, ranges, keys."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import SettingError
from pipelines.parquet_shards import choose_columns, count_rows, earlier_keys, read_rows
from pipelines.samples import Columns
from tests.inputs import write_parquet

MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("fields", "columns", "expected"),
    [
        ([("picture", pa.binary()), ("n", pa.int64())], Columns(), ("picture", None, None)),
        ([("image", MEDIA), ("depth", MEDIA), ("key", pa.string())], Columns(), ("image", "key", None)),
        ([("a", MEDIA), ("b", pa.large_binary()), ("text", pa.string())], Columns(image="b"), ("b", None, "text")),
        ([("image", pa.binary()), ("id", pa.int64())], Columns(key="id"), ("image", "id", None)),
    ],
)
def test_columns_are_found(fields, columns: Columns, expected) -> None:
    chosen = choose_columns(pa.schema(fields), columns, "x.parquet")
    assert (chosen.image, chosen.key, chosen.caption) == expected


@pytest.mark.parametrize(
    ("fields", "columns", "message"),
    [
        ([("a", pa.binary()), ("b", pa.binary())], Columns(), "Name it with --image-column"),
        ([("n", pa.int64())], Columns(), "0 columns that can hold pictures"),
        ([("image", pa.binary())], Columns(image="img"), "--image-column 'img' is not in"),
        ([("image", pa.binary()), ("n", pa.int64())], Columns(image="n"), "type int64"),
        ([("image", pa.binary())], Columns(caption="c"), "--caption-column 'c' is not in"),
    ],
)
def test_unclear_columns_are_setting_errors(fields, columns: Columns, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        choose_columns(pa.schema(fields), columns, "x.parquet")


def test_ranges_across_row_groups(tmp_path: Path) -> None:
    images = [bytes([number]) for number in range(25)]
    path = str(write_parquet(tmp_path / "a.parquet", {"image": images, "key": [f"k{n}" for n in range(25)]}))
    rows, schema = count_rows(path)
    chosen = choose_columns(schema, Columns(), path)
    assert rows == 25
    for start, stop in [(0, 25), (9, 11), (12, 13), (20, 25)]:
        found = list(read_rows(path, chosen, start, stop))
        assert [position for position, _ in found] == list(range(start, stop))
        assert [row["image"][0] for _, row in found] == list(range(start, stop))
    assert earlier_keys(path, "key", 12) == {f"k{n}" for n in range(12)}
    assert earlier_keys(path, "key", 0) == set()
