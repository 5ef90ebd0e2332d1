"""The output in `tests/golden/output`, which an earlier version wrote, is continued as it is."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import storage
from tests.support.golden_output import (
    BUCKET,
    DAMAGED,
    FAILING,
    GOLDEN,
    WAITING,
    run,
    run_as_committed,
    served,
    upload,
)
from tests.support.object_store import ObjectStore, Proxy, object_store

__all__ = ["object_store"]
NAMED_BY_CONTENT = ("data/", "errors/", "_chunks/done/", "_chunks/index/", "_chunks/plans/", "_chunks/configuration")


@pytest.fixture(scope="module")
def server(object_store: ObjectStore) -> Iterator[Proxy]:
    with served(object_store, GOLDEN / "input") as proxy:
        yield proxy


@pytest.fixture
def output(server: Proxy, request: pytest.FixtureRequest) -> str:
    """A copy of the committed output; its place is in no name."""
    root = f"{BUCKET}/{request.node.name}"
    upload(GOLDEN / "output", root)
    return root


def names(root: str) -> set[str]:
    """The files of an output whose names are functions of its input and settings."""
    found = {info.uri.removeprefix(f"{root}/") for info in storage.list_files(root)}
    return {name for name in found if name.startswith(NAMED_BY_CONTENT)}


def committed_names() -> set[str]:
    files = (path for path in (GOLDEN / "output").rglob("*") if path.is_file())
    return {
        name for path in files if (name := path.relative_to(GOLDEN / "output").as_posix()).startswith(NAMED_BY_CONTENT)
    }


def rows(root: str, folder: str) -> dict[str, Any]:
    """The rows of data/ or errors/ by key; maps as arrays, since encoders may differ in their bytes."""
    found: dict[str, Any] = {}
    for info in storage.list_files(f"{root}/{folder}"):
        for row in pq.read_table(io.BytesIO(storage.read_bytes(info.uri))).to_pylist():
            assert row["key"] not in found, "a key comes once"
            found[row["key"]] = row
    for row in found.values():
        if "depth" in row:
            row["depth"]["bytes"] = np.asarray(Image.open(io.BytesIO(row["depth"]["bytes"]))).tolist()
    return found


def test_a_fresh_run_gives_the_committed_names_and_rows(server: Proxy, output: str) -> None:
    fresh = f"{BUCKET}/fresh"
    assert run_as_committed(server, fresh)[0] == 1, "a row waits"
    assert names(fresh) == committed_names()
    assert rows(fresh, "data") == rows(output, "data")
    for root in (fresh, output):
        places = [(row["key"], row["position"], row["stage"]) for row in rows(root, "errors").values()]
        assert sorted(places) == [(WAITING, 1, "fetch"), (DAMAGED, 2, "decode"), (FAILING, 3, "model")]


def test_where_nothing_is_left_nothing_is_done(output: str) -> None:
    before = {info.uri: info for info in storage.list_files(output) if "/_chunks/runs/" not in info.uri}
    code, said = run(output, "--give-up")
    assert code == 0 and "6 samples in 2 shards; 6 done before, 0 to do" in said
    written = {info.uri for info in storage.list_files(output) if before.get(info.uri) != info}
    assert {uri.removeprefix(f"{output}/").split("/")[0] for uri in written} <= {"_chunks", "README.md", "preview.png"}
    assert names(output) == committed_names()


def test_the_same_command_does_the_row_that_waits(output: str) -> None:
    done = rows(output, "data").keys()
    code, said = run(output)
    assert code == 0 and "6 samples in 2 shards; 5 done before, 1 to do" in said
    assert rows(output, "data").keys() == {*done, WAITING}
    assert rows(output, "errors").keys() == {DAMAGED, FAILING}


def test_failed_rows_are_retried(output: str) -> None:
    code, said = run(output, "--retry-errors")
    assert code == 0 and "6 samples in 2 shards; 3 done before, 3 to do" in said
    assert rows(output, "data").keys() == {"photo-0", "photo-1", FAILING, "link-0", WAITING}
    assert rows(output, "errors").keys() == {DAMAGED}


def test_the_committed_files_are_small() -> None:
    assert sum(path.stat().st_size for path in Path(GOLDEN).rglob("*") if path.is_file()) < 60_000
