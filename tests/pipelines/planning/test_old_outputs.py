"""Outputs of version 0.1 are read and continued: names with short hashes, and files without counts in their names."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset import layout, schema
from pipelines.errors import SettingError
from pipelines.runs.status import read_status
from tests.support.in_process import World, once
from tests.support.inputs import write_folder, write_tar

SETTINGS = {"a": 1}


def old_hash(*parts: str) -> str:
    """Compute a hash in a name as version 0.1 did."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def old_fingerprint(path: Path) -> str:
    return old_hash(str(path.stat().st_size), str(path.stat().st_mtime))


def old_name(shard: str, fingerprint: str, start: int, stop: int) -> str:
    stem = shard.rsplit("/", 1)[-1].split(".", 1)[0]
    configuration = old_hash(json.dumps(SETTINGS, sort_keys=True))
    return f"{stem}-{old_hash(shard)}-{fingerprint}-{start:07d}-{stop:07d}-{configuration}"


def write_old_chunk(
    output: Path,
    name: str,
    shard: str,
    names: Sequence[str],
    failed: Sequence[int],
    files: dict[str, str] | None = None,
) -> None:
    """Write what version 0.1 published for the samples `names`, which follow the start of its range."""
    start = int(name.split("-")[-3])
    rows = [{"key": key, "shard": shard, "position": start + at} for at, key in enumerate(names)]
    good = [{**row, "value": f"{row['key']} old"} for row in rows if row["position"] not in failed]
    bad = [{**row, "stage": "model", "reason": "it fails"} for row in rows if row["position"] in failed]
    for folder in ("data", "errors", "_chunks/done"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    fields = ("key", "value", "caption"), ("width", "height"), ("shard",), ("position", "seed")
    types = (pa.string(), pa.int32(), pa.string(), pa.int64())
    rows_schema = pa.schema([(field, kind) for group, kind in zip(fields, types, strict=True) for field in group])
    if good:
        pq.write_table(pa.Table.from_pylist(good, rows_schema), output / "data" / f"{name}.parquet")
    if bad:
        pq.write_table(pa.Table.from_pylist(bad, schema.ERRORS), output / "errors" / f"{name}.parquet")
    mark = json.dumps({"shard": shard, "files": files or {}})
    (output / "_chunks" / "done" / f"{name}.ok{len(good)}.bad{len(bad)}").write_text(mark)


def write_old_settings(output: Path) -> None:
    (output / "_chunks").mkdir(parents=True, exist_ok=True)
    (output / "_chunks" / "chunk-size.json").write_text('{"chunk_size": 10}')
    configuration = old_hash(json.dumps(SETTINGS, sort_keys=True))
    (output / "_chunks" / f"configuration-{configuration}.json").write_text(json.dumps(SETTINGS))


def keys(count: int, first: int = 0) -> list[str]:
    return [f"{number:05d}" for number in range(first, first + count)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def with_tar(world: World) -> World:
    """A tar of 25 samples, of which version 0.1 has processed the first 20; two of them failed."""
    path = write_tar(world.inputs / "a.tar", [(f"{key}.jpg", key.encode()) for key in keys(25)])
    for start, failed in [(0, [3]), (10, [12])]:
        name = old_name(str(path), old_fingerprint(path), start, start + 10)
        write_old_chunk(world.output, name, str(path), keys(10, start), failed)
    write_old_settings(world.output)
    return world


def test_the_formulas_are_those_of_version_0_1() -> None:
    assert old_hash("s3://x/a") == "1e5c8be00b"
    assert old_name("s3://x/a", "f" * 10, 0, 64).startswith("a-1e5c8be00b-ffffffffff-0000000-0000064-")


def test_the_rest_is_processed_and_finished_rows_stay(with_tar: World) -> None:
    before = sorted((with_tar.output / "data").iterdir())
    assert with_tar.run(settings=SETTINGS) == 0
    assert (with_tar.rows(), with_tar.failed()) == (once(keys(25)), {"00003", "00012"})
    assert {*before} < {*(with_tar.output / "data").iterdir()}
    assert sum(value.endswith("old") for value in with_tar.values().values()) == 18


def test_failed_samples_are_retried(with_tar: World) -> None:
    assert with_tar.run(settings=SETTINGS, retry_errors=True, fails={"00012"}) == 0
    assert (with_tar.rows(), with_tar.failed()) == (once(keys(25)), {"00012"})
    assert with_tar.run(settings=SETTINGS) == 0
    assert with_tar.rows() == once(keys(25))


def test_other_settings_are_refused(with_tar: World) -> None:
    with pytest.raises(SettingError, match="a was 1 and is now 2"):
        with_tar.run(settings={"a": 2})


def test_two_marks_of_a_killed_retry_do_not_count(with_tar: World) -> None:
    (mark,) = (with_tar.output / "_chunks" / "done").glob("*-0000000-0000010-*")
    mark.with_name(mark.name.replace(".ok9.bad1", ".ok10.bad0")).write_bytes(mark.read_bytes())
    assert with_tar.run(settings=SETTINGS) == 0
    assert (with_tar.rows(), with_tar.failed()) == (once(keys(25)), {"00012"})


def test_a_changed_shard_replaces_old_rows(with_tar: World) -> None:
    write_tar(with_tar.inputs / "a.tar", [(f"{key}.jpg", b"new") for key in keys(7)])
    assert with_tar.run(settings=SETTINGS) == 0
    assert with_tar.rows() == once(keys(7))


def test_the_status_counts_old_and_new_chunks(with_tar: World) -> None:
    assert with_tar.run(settings=SETTINGS) == 0
    status = read_status(str(with_tar.output))
    assert (status.planned, status.ok, status.bad, status.pending, status.others) == (25, 23, 2, 0, 0)


def test_an_input_that_was_named_by_a_link_is_recognized(world: World) -> None:
    path = write_tar(world.inputs / "a.tar", [(f"{key}.jpg", key.encode()) for key in keys(10)])
    (world.root / "link").symlink_to(world.inputs)
    spelled = f"{world.root}/link/a.tar"
    write_old_chunk(world.output, old_name(spelled, old_fingerprint(path), 0, 10), spelled, keys(10), [])
    write_old_settings(world.output)
    assert world.run(settings=SETTINGS, inputs=[world.root / "link"]) == 0
    assert sum(value.endswith("old") for value in world.values().values()) == 10


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("is_linked", [False, True])
def test_a_folder_is_continued(world: World, changed: bool, is_linked: bool) -> None:
    contents = {f"{key}.jpg": key.encode() for key in keys(6)}
    write_folder(world.inputs, {**contents, "00001.txt": b"a caption"})
    folder = world.inputs
    if is_linked:
        (world.root / "link").symlink_to(world.inputs)
        folder = world.root / "link"
    fingerprints = {}
    for name in contents:
        beside = [old_fingerprint(folder / "00001.txt")] if name == "00001.jpg" else []
        fingerprints[f"{folder}/{name}"] = old_hash(old_fingerprint(folder / name), *beside)
    content = old_hash(*(f"{uri} {fingerprint}" for uri, fingerprint in fingerprints.items()))
    name = old_name(str(folder), content, 0, 6)
    write_old_chunk(world.output, name, str(folder), list(contents), [2], fingerprints)
    write_old_settings(world.output)
    write_folder(world.inputs, {"99999.jpg": b"new"})
    if changed:
        (world.inputs / "00004.jpg").write_bytes(b"changed")
        os.utime(world.inputs / "00004.jpg", (5, 5))
    assert world.run(settings=SETTINGS, inputs=[folder]) == 0
    assert world.rows() == once([*contents, "99999.jpg"])
    assert sum(value.endswith("old") for value in world.values().values()) == (0 if changed else 5)
    assert world.run(settings=SETTINGS, inputs=[folder], retry_errors=True) == 0
    assert (world.rows(), world.failed()) == (once([*contents, "99999.jpg"]), set())
    assert layout.list_output(str(world.output)).remains == ()
