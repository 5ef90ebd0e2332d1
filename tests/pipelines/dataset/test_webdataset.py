"""Rows as WebDataset tars: equal rows give equal bytes, rows and images are read back, retries are merged."""

import dataclasses
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.dataset import layout, schema
from pipelines.dataset.row_formats import PARQUET, ROW_FORMATS
from pipelines.dataset.webdataset import WebDataset, tar_name
from pipelines.engine import blocks
from pipelines.planning.plan import make_plan
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.samples import Chunk, Columns, chunk_name, version_stem
from pipelines.stages.publish import publish_block
from tests.support.inputs import all_rows, encoded_image

SCHEMA = schema.with_features(
    pa.schema(
        [("key", pa.string()), ("image", schema.MEDIA), ("depth", schema.MEDIA), ("caption", pa.string())]
        + [("width", pa.int32()), ("confidence", pa.float32()), ("position", pa.int64())]
    )
)


def row(position: int, key: str, kind: str = "JPEG") -> dict[str, Any]:
    return {
        "key": key,
        "image": {"bytes": encoded_image(position, kind=kind), "path": "stored.name"},
        "depth": {"bytes": encoded_image(position, kind="PNG", mode="L"), "path": "x.depth.png"},
        "caption": f"caption {position} é",
        "width": 48,
        "confidence": None,
        "position": position,
    }


ROWS = [row(0, "00000"), row(1, "f/a.jpg"), row(2, "f/a_jpg", "PNG"), row(3, "c", "WEBP")]


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "a.tar"
    path.write_bytes(WebDataset().encode(rows, SCHEMA))
    return path


def test_members_are_named_as_webdataset_requires(tmp_path: Path) -> None:
    with tarfile.open(written(tmp_path, ROWS)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        *("00000.jpg", "00000.depth.png", "00000.json", "f/a_jpg.jpg", "f/a_jpg.depth.png", "f/a_jpg.json"),
        *("f/a_jpg-2.png", "f/a_jpg-2.depth.png", "f/a_jpg-2.json", "c.webp", "c.depth.png", "c.json"),
    ]
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}


@pytest.mark.parametrize(
    ("key", "name"),
    [("a/b.c.d", "a/b_c_d"), ("../../etc/x", "etc/x"), ("__a", "-__a"), ("", "sample"), ("a.b/", "a_b"), ("é", "é")],
)
def test_any_key_becomes_a_valid_name(key: str, name: str) -> None:
    assert tar_name(key) == name


def test_equal_rows_give_equal_bytes_even_after_a_round_trip(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    back = list(WebDataset().read(str(path)))
    assert WebDataset().encode(back, SCHEMA) == path.read_bytes() == WebDataset().encode(ROWS, SCHEMA)
    for before, after in zip(ROWS, back, strict=True):
        for name in ("image", "depth"):
            assert after.pop(name)["bytes"] == before[name]["bytes"]
        assert after == {name: value for name, value in before.items() if name not in ("image", "depth")}


def test_selected_columns(tmp_path: Path) -> None:
    path = str(written(tmp_path, ROWS))
    assert [found["key"] for found in WebDataset().read(path, ["key"])] == ["00000", "f/a.jpg", "f/a_jpg", "c"]
    assert {*next(WebDataset().read(path, ["image", "absent"]))} == {"image", "absent"}


def test_a_tar_can_be_used_as_an_input(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    measured = measure(find_shards([str(tmp_path)]), Columns(media=("depth.png",)), str(tmp_path / "out"))
    (chunk,) = make_plan(measured, layout.list_output(str(tmp_path / "out")), "c" * 10, 10).chunks
    found = list(read_chunk(chunk, Columns(media=("depth.png",))))
    assert [sample.problem for sample in found] == [None] * 4
    for sample, before in zip(found, ROWS, strict=True):
        assert (sample.image, sample.caption) == (before["image"]["bytes"], before["caption"])
        assert sample.media["depth.png"].content == before["depth"]["bytes"]


NAME = chunk_name("a", "/a.tar", "f" * 16, 0, 3, "c" * 16)


def chunk_and_block(good: list[int], retries: layout.Version | None = None) -> tuple[Chunk, pa.Table]:
    """Three samples, or the failed one of a version; those not in `good` have failed."""
    chunk = Chunk(name=NAME, shard_uri="/a.tar", shard_format="tar", start=0, stop=3)
    if retries is not None:
        chunk = dataclasses.replace(chunk, only=(1,), base_data=retries.data_uri, base_errors=retries.errors_uri)
    rows = [
        {"position": at, "key": str(at), **({} if at in good else {"error_stage": "read", "error_reason": "lost"})}
        for at in chunk.positions
    ]
    return chunk, blocks.new_block(chunk, rows, pa.schema([]))


@pytest.mark.parametrize("name", ROW_FORMATS)
def test_retried_samples_are_merged_into_their_file(name: str, tmp_path: Path) -> None:
    row_format, output = ROW_FORMATS[name], str(tmp_path)

    def publish(good: list[int], retries: layout.Version | None = None) -> dict[str, Any]:
        made = chunk_and_block(good, retries)
        return publish_block(output, *made, SCHEMA, lambda row_, chunk: row(row_["position"], row_["key"]), row_format)

    assert publish([0, 2])["bad"] == 1
    (before,) = layout.list_output(output).finished
    assert [found["key"] for found in row_format.read(before.data_uri)] == ["0", "2"]
    assert [error["key"] for error in all_rows(tmp_path, "errors")] == ["1"]
    publish([1], retries=before)
    (after,) = (version for version in layout.list_output(output).finished if version != before)
    once = Path(after.data_uri).read_bytes()
    assert [found["key"] for found in row_format.read(after.data_uri)] == ["0", "1", "2"]
    assert (after.ok, after.bad, after.errors_uri) == (3, 0, "")
    assert Path(after.mark_uri).name == version_stem(NAME, 3, [])
    publish([0, 1, 2])
    assert len(layout.list_output(output).finished) == 2
    assert name == PARQUET.name or Path(after.data_uri).read_bytes() == once
