# fsspec does not declare the attributes of its S3 driver.
# pyright: reportAttributeAccessIssue=false
"""Names on S3 that look like patterns or expressions, outputs below an input, and temporarily missing objects."""

import json
import unicodedata
from pathlib import Path

import pytest

from pipelines.dataset import layout
from pipelines.dataset.layout import check_output
from pipelines.errors import SampleError, SettingError
from pipelines.readers.references import fetch
from pipelines.readers.shards import find_shards
from pipelines.samples import chunk_name, version_stem
from pipelines.storage import files, remote_files
from tests.support.in_process import World, once
from tests.support.object_store import Fault, Proxy, object_store
from tests.support.s3_user import OPEN, become, proxy, s3

__all__ = ["become", "object_store", "proxy", "s3"]
ODD_NAMES = [
    "a::b", "file::x", "a?b", "a#b", "a*b", "a[1]", "a{1,2}", "a%20b", "a b", "a+b", "-a", "~a", "a'b\"c&d",
    unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "naïve"), "日本", "a?versionId=3", "a\nb",
]  # fmt: skip


@pytest.mark.parametrize("folder", ["odd", "in::side [x] {a,b} #%20"])
def test_odd_names_are_names(s3: Proxy, tmp_path: Path, folder: str) -> None:
    root = f"{OPEN}/names/{folder}"
    fs, _ = remote_files.filesystem(OPEN)
    for name in ODD_NAMES:  # by the protocol, because the driver interprets ?versionId=
        fs.call_s3("put_object", Bucket="open-bucket", Key=f"names/{folder}/{name}.jpg", Body=f"{name} v1".encode())
    world = World(tmp_path)
    assert world.run(inputs=[root], chunk_size=100) == 0
    assert world.values() == {f"{name}.jpg": f"{name} v1" for name in ODD_NAMES}
    rows = [{"image": f"{name}.jpg", "key": name} for name in ODD_NAMES]
    files.publish(f"{root}/list.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    again = World(tmp_path / "again") if (tmp_path / "again").mkdir() is None else world
    assert again.run(inputs=[f"{root}/list.jsonl"], chunk_size=100) == 0
    assert again.values() == {name: f"{name} v1" for name in ODD_NAMES}
    for name in ("a::b", "a?b", "a*b", "a[1]", "a{1,2}"):
        (shard,) = find_shards([f"{root}/{name}.jpg"])
        assert [file.uri for file in shard.files] == [f"{root}/{name}.jpg"]
    (shard,) = find_shards([f"{root}/a?b*"])
    assert {file.uri.removeprefix(f"{root}/") for file in shard.files} >= {"a#b.jpg", "a b.jpg", "a?b.jpg", "a*b.jpg"}
    assert (fetch(f"{root}/a::b.jpg"), fetch(f"{root}/a?b.jpg").name) == ((b"a::b v1", "a::b.jpg"), "a?b.jpg")


def test_references_are_found_in_other_spellings(s3: Proxy) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    files.publish(f"{OPEN}/spelling/{apart}.jpg", b"1")
    files.publish(f"{OPEN}/spelling/a b.jpg", b"2")
    assert fetch(f"{OPEN}/spelling/{composed}.jpg").content == b"1"
    assert fetch(f"{OPEN}/spelling/a%20b.jpg").content == b"2"
    with pytest.raises(SampleError, match="there is nothing"):
        fetch(f"{OPEN}/spelling/a%21b.jpg")


@pytest.mark.parametrize("name", ["a::b", "out [1] {x}", "out?x#y", "out*"])
def test_outputs_with_odd_names(s3: Proxy, tmp_path: Path, name: str) -> None:
    world = World(tmp_path)
    for key in "abc":
        (world.inputs / f"{key}.jpg").write_bytes(f"{key} v1".encode())
    output = f"{OPEN}/outputs/{name}"
    world.output = output  # type: ignore[assignment]
    assert [world.run(fails=["b.jpg"]), world.run(), world.run(retry_errors=True)] == [0, 0, 0]
    (version,) = layout.list_output(output).finished
    assert (version.ok, version.bad) == (3, 0)
    assert [shard.uri for shard in find_shards([output])] == [version.data_uri]


def test_outputs_below_an_input_cost_no_requests(s3: Proxy, tmp_path: Path) -> None:
    root = f"{OPEN}/photos"
    stem = version_stem(chunk_name("a", "x", "f" * 16, 0, 3, "c" * 16), 3, [])
    for number in range(20):
        files.publish(f"{root}/{number:02d}.jpg", b"x")
    for name in (f"data/{stem}.parquet", f"_chunks/done/{stem}", "preview.png", "README.md", "report.html"):
        files.publish(f"{root}/Depth/{name}", b"x")
    s3.requests.clear()
    told: list[str] = []
    (shard,) = find_shards([root], tell=told.append)
    assert len(shard.files) == 20 and len(s3.requests) <= 6, s3.requests
    assert told == [
        f"left out of the input: outputs of earlier runs: 1 ({root}/Depth; to read one, give it alone as --input)"
    ]
    (shard,) = find_shards([f"{root}/*"])
    assert len(shard.files) == 20
    assert [shard.uri for shard in find_shards([f"{root}/Depth"])] == [f"{root}/Depth/data/{stem}.parquet"]
    with pytest.raises(SettingError, match="is --output itself"):
        find_shards([root], exclude=f"S3{root[2:]}/")
    with pytest.raises(SettingError, match="versionId"):
        check_output(f"{OPEN}/out?versionId=3")


def test_an_object_that_is_throttled_waits(s3: Proxy, become, tmp_path: Path) -> None:
    become(AWS_MAX_ATTEMPTS="1")
    for key in "abc":
        files.publish(f"{OPEN}/throttled/{key}.jpg", f"{key} v1".encode())
    world = World(tmp_path)
    rows = [{"key": key, "image": f"{OPEN}/throttled/{key}.jpg"} for key in "abcd"]
    (world.inputs / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    s3.faults = [Fault("503", 1000, "GET /open-bucket/throttled/b.jpg"), Fault("403", 1, "throttled/c.jpg")]
    assert world.run() == 1
    (stem,) = world.stems()
    assert stem.endswith(".ok1.bad3.wait1") and world.rows() == once("abcd")
    s3.faults = []
    assert world.run() == 0 and world.values().keys() == {"a", "b"} and world.failed() == {"c", "d"}
    s3.faults = [Fault("503", 1000, "throttled/")]
    fresh = World(tmp_path / "x") if (tmp_path / "x").mkdir() is None else world
    (fresh.inputs / "a.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert fresh.run() == 1 and not fresh.stems(), "nothing comes from the store: nobody's sample"
    assert any("a chunk failed" in text or "stopped" in text for text in fresh.said)
    s3.faults = []
    assert fresh.run() == 0
