"""Parquet: which column is the image, ranges, keys, URIs, nested columns, predicates, memory."""

import struct
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers import parquet_files
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.parquet import count_rows, earlier_keys, index_parquet, read_rows
from pipelines.readers.parquet_columns import choose_columns
from pipelines.readers.parquet_files import BadRow, open_parquet
from pipelines.readers.parquet_footer import ColumnChunk
from pipelines.readers.predicates import parse_predicates
from pipelines.readers.shards import find_shards
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.store import FILES
from tests.support.inputs import write_folder, write_parquet

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
        ([("n", pa.int64())], Columns(), "0 columns that can hold images"),
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
        assert [row["image"][0] for _, row in found if not isinstance(row, BadRow)] == list(range(start, stop))
    assert earlier_keys(path, "key", 12) == {f"k{n}" for n in range(12)}
    assert earlier_keys(path, "key", 0) == set()


def read_samples(path: Path, tmp_path: Path, columns: Columns | None = None, chunk_size: int = 7) -> list[Sample]:
    columns = columns or Columns()
    measured = measure(find_shards([str(path)]), columns, str(tmp_path / "out"))
    plan = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, chunk_size)
    found = [sample for chunk in plan.chunks for sample in read_chunk(Chunk.from_json(chunk.to_json()), columns)]
    assert [sample.position for sample in found] == [*range(plan.samples)]
    return found


def test_images_named_by_uri_are_fetched(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.jpg": b"a", "sub/b.jpg": b"b", "empty.jpg": b""})
    uris = ["a.jpg", f"{tmp_path}/in/sub/b.jpg", "absent.jpg", None, "empty.jpg", "./sub/b.jpg"]
    path = write_parquet(tmp_path / "in" / "x.parquet", {"url": uris, "caption": list("123456")})
    found = read_samples(path, tmp_path)
    assert [sample.image for sample in found] == [b"a", b"b", b"", b"", b"", b"b"]
    assert [sample.problem is not None for sample in found] == [False, False, True, True, True, False]
    assert found[2].problem is not None and "cannot read" in found[2].problem.reason
    assert [sample.caption for sample in found] == list("123456")


def test_structs_with_a_path_and_no_bytes_are_fetched(tmp_path: Path) -> None:
    """The `datasets` library writes images that are not embedded as such structs."""
    write_folder(tmp_path, {"a.jpg": b"a"})
    values = [{"bytes": None, "path": "a.jpg"}, {"bytes": b"b", "path": "b.jpg"}, {"bytes": b"", "path": "a.jpg"}]
    found = read_samples(write_parquet(tmp_path / "x.parquet", {"image": values}), tmp_path)
    assert [(sample.image, sample.image_name) for sample in found[:2]] == [(b"a", "a.jpg"), (b"b", "b.jpg")]
    assert found[2].problem is not None


def test_nested_columns(tmp_path: Path) -> None:
    rows = [
        {"views": [{"bytes": b"1", "path": "1.png"}, {"bytes": b"2", "path": "2.png"}], "id": {"n": 1, "lang": "en"}},
        {"views": [{"bytes": b"3", "path": "3.png"}], "id": {"n": 2, "lang": "de"}},
        {"views": None, "id": {"n": 2, "lang": None}},
    ]
    columns = {name: [row[name] for row in rows] for name in ("views", "id")} | {"text.en": ["x", "y", "z"]}
    path = write_parquet(tmp_path / "x.parquet", columns)
    found = read_samples(path, tmp_path, Columns(image="views.1", key="id.n", caption="id.lang"))
    assert [(sample.image, sample.key, sample.caption) for sample in found] == [
        (b"2", "1", "en"),
        (b"", "2", "de"),
        (b"", "2", ""),
    ]
    assert found[1].problem is not None and "views.1 is null or empty" in found[1].problem.reason
    assert found[2].problem is not None and "duplicate key" in found[2].problem.reason
    assert read_samples(path, tmp_path, Columns(image="views.0.bytes", caption="text.en"))[1].caption == "y"
    with pytest.raises(SettingError, match="name one element of a list: views.0"):
        read_samples(path, tmp_path, Columns(image="views"))
    with pytest.raises(SettingError, match="--key-column 'id.m' is not in"):
        read_samples(path, tmp_path, Columns(image="views.0", key="id.m"))


def test_conditions_choose_rows(tmp_path: Path) -> None:
    numbers = list(range(200))
    path = write_parquet(
        tmp_path / "x.parquet",
        {
            "image": [bytes([number]) for number in numbers],
            "width": [None if number % 10 == 9 else number for number in numbers],
            "lang": ["en" if number % 2 else "de" for number in numbers],
            "meta": [{"score": number / 10} for number in numbers],
            "key": [f"k{number % 150}" for number in numbers],
        },
    )
    columns = Columns(where=("width>=25", "lang = en", "meta.score < 18"))
    expected = [number for number in numbers if 25 <= number < 180 and number % 2 and number % 10 != 9]
    found = read_samples(path, tmp_path, columns)
    assert [sample.image[0] if sample.problem is None else None for sample in found] == [
        number if number < 175 else None for number in expected
    ]
    assert [sample.key for sample in found] == [f"k{number % 150}" for number in expected]
    assert read_samples(path, tmp_path, Columns(where=("width>1000",))) == []


def test_row_groups_that_cannot_hold_a_match_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"image": [b"x"] * 100, "width": list(range(100))}
    path = write_parquet(tmp_path / "x.parquet", columns)
    read: list[int] = []
    original = pq.ParquetFile.iter_batches

    def spy(self, *args, row_groups, **options):
        read.extend(row_groups)
        return original(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    for condition, groups in [("width>=85", [8, 9]), ("width==40", [4]), ("width<10", [0]), ("width!=5", [*range(10)])]:
        read.clear()
        read_samples(path, tmp_path, Columns(where=(condition,)), chunk_size=1000)
        assert read == groups * 2  # once to plan, once to read


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("width", "is not a condition"),
        ("size>3", "no such column"),
        ("width>wide", "column width .* has type int64"),
    ],
)
def test_conditions_that_cannot_be_checked(tmp_path: Path, condition: str, message: str) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"image": [b"x"], "width": [1]})
    with pytest.raises(SettingError, match=message):
        read_samples(path, tmp_path, Columns(where=(condition,)))


def test_conditions_need_parquet(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x.jsonl": b"{}"})
    with pytest.raises(SettingError, match="needs Parquet files"):
        read_samples(tmp_path / "x.jsonl", tmp_path, Columns(where=("width>1",)))


def test_a_large_row_group_streams(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"image": [bytes(1 << 20)] * 128})
    pq.write_table(table, path, row_group_size=128, compression="none", use_dictionary=False, data_page_size=1 << 20)
    del table
    before, most = pa.total_allocated_bytes(), 0
    chosen = choose_columns(pa.schema([("image", pa.binary())]), Columns(), "x")
    for _, row in read_rows(str(path), chosen, 100, 128):
        assert not isinstance(row, BadRow) and len(row["image"]) == 1 << 20
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 80 << 20  # instead of 128 MB: a few dozen rows and a buffer


def test_keys_are_compared_within_a_shard_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_parquet(tmp_path / "in" / f"{name}.parquet", {"image": [b"1", b"2", b"3"], "key": ["x", "y", "x"]})
    found = find_shards([str(tmp_path / "in")])
    assert [shard.duplicates for shard in (index_parquet(shard.uri, Columns()) for shard in found)] == [(2,), (2,)]


STATISTICS = {
    "byte": pa.array(range(-50, 50), pa.int8()),
    "large": pa.array(range(2**31, 2**31 + 100), pa.uint32()),
    "half": pa.array([number / 2 for number in range(100)], pa.float32()),
    "name": [f"é{number:02d}" for number in range(100)],
    "flag": [number >= 50 for number in range(100)],
    "day": pa.array(range(100), pa.date32()),
    "nan": [float("nan")] * 50 + [float(number) for number in range(50)],
    "none": pa.nulls(100, pa.int64()),
}


@pytest.mark.parametrize(
    ("condition", "groups", "rows"),
    [
        ("byte>=45", [9], range(95, 100)),
        ("byte<-45", [0], range(5)),
        (f"large>{2**31 + 88}", [8, 9], range(89, 100)),
        ("half<=1.5", [0], range(4)),
        ("name==é73", [7], [73]),
        ("name!=x", [*range(10)], range(100)),
        ("flag==true", [5, 6, 7, 8, 9], range(50, 100)),
        ("nan>=40", [0, 1, 2, 3, 4, 9], range(90, 100)),
        ("none>0", [*range(10)], []),
        ("name>é98", [9], [99]),
        ("byte==null", [*range(10)], []),
    ],
)
def test_statistics_of_every_type(tmp_path: Path, condition: str, groups: list[int], rows: Sequence[int]) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"image": [bytes([n]) for n in range(100)], **STATISTICS})
    parsed = parse_predicates((condition,), pq.read_schema(path), "x")
    with open_parquet(str(path), FILES) as parquet:
        assert [group for group, _ in parquet.row_groups(0, 100, parsed)] == groups
    found = read_samples(path, tmp_path, Columns(where=(condition,)))
    assert [sample.image[0] for sample in found] == [*rows]


def test_statistics_that_pyarrow_reads_alike(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", STATISTICS)
    metadata = pq.read_metadata(path)
    with open_parquet(str(path), FILES) as parquet:
        for index, chunks in enumerate(parquet.column_chunks):
            group = metadata.row_group(index)
            for at in range(group.num_columns):
                column = group.column(at)
                mine = chunks[column.path_in_schema]
                bounds = mine.bounds(parquet.schema.field(at).type)
                statistics = column.statistics
                assert mine.physical_type == column.physical_type
                if column.path_in_schema == "day" or not statistics.has_min_max:
                    assert bounds is None
                else:
                    assert bounds == (statistics.min, statistics.max)


def test_a_large_footer_is_read_without_its_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "MAX_STATISTICS_BYTES", 100)
    path = write_parquet(tmp_path / "x.parquet", {"image": [b"x"] * 100, "width": list(range(100))})
    assert len(read_samples(path, tmp_path, Columns(where=("width>=85",)))) == 15


def test_bounds_that_say_nothing_are_none() -> None:
    def bounds(least: bytes | None, most: bytes | None, kind: pa.DataType) -> object:
        return ColumnChunk(path="a", physical_type="FLOAT", least=least, most=most).bounds(kind)

    one, nan = struct.pack("<f", 1), struct.pack("<f", float("nan"))
    assert bounds(one, one, pa.float32()) == (1, 1)
    assert bounds(one, nan, pa.float32()) is bounds(nan, one, pa.float32()) is bounds(None, one, pa.float32()) is None
    assert bounds(b"x", b"y", pa.binary()) is None
