import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from tests.simulation.census import Census, census

OUT, SHARD = "sim://bucket/out", "sim://bucket/in/a.tar"
FINGERPRINT, CONFIGURATION, OUTCOME = "1" * 16, "2" * 16, "3" * 16
EXPECTED = {(SHARD, "a"): 0, (SHARD, "b"): 0, (SHARD, "c"): 0}


def stem(start: int, stop: int, ok: int, bad: int, configuration: str = CONFIGURATION) -> str:
    shard = storage.short_hash(SHARD)
    return f"a-{shard}-{FINGERPRINT}-{start:07d}-{stop:07d}-{configuration}-{OUTCOME}.ok{ok}.bad{bad}"


def data(name: str, *rows: str, version: int = 0) -> dict[str, bytes]:
    lines = [json.dumps({"shard": SHARD, "key": key, "value": f"{key} v{version}"}) for key in rows]
    return {f"{OUT}/data/{name}.jsonl": "\n".join(lines).encode()}


def errors(name: str, *rows: str) -> dict[str, bytes]:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"shard": SHARD, "key": key} for key in rows]), buffer)
    return {f"{OUT}/errors/{name}.parquet": buffer.getvalue()}


def mark(name: str) -> dict[str, bytes]:
    return {f"{OUT}/_chunks/done/{name}": b"{}"}


WHOLE = stem(0, 3, 2, 1)
GOOD = {**data(WHOLE, "a", "b"), **errors(WHOLE, "c"), **mark(WHOLE)}


def count(files: dict[str, bytes], **options: object) -> Census:
    return census(files, OUT, [SHARD], EXPECTED, **options)  # type: ignore[arg-type]


def test_an_output_in_order_has_nothing_wrong() -> None:
    assert count(GOOD) == Census() and count(GOOD).wrong == []


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({f"{OUT}/errors/{WHOLE}.parquet": None}, {"lost": 1, "mismatched": 1}),
        ({f"{OUT}/_chunks/done/{WHOLE}": None}, {"mismatched": 2}),
        ({f"{OUT}/data/{WHOLE}.jsonl": b'{"torn'}, {"lost": 2, "mismatched": 1}),
        (data(stem(0, 1, 1, 0), "a") | mark(stem(0, 1, 1, 0)), {"duplicated": 1}),
        (data(stem(3, 4, 1, 0), "z") | mark(stem(3, 4, 1, 0)), {"foreign": 1}),
        (data(WHOLE, "a", "b", version=7), {"stale": 2}),
        (mark(stem(0, 3, 3, 0, configuration="4" * 16)), {"mismatched": 1, "mixed": 1}),
    ],
)
def test_what_is_wrong_is_counted(change: dict[str, bytes | None], wrong: dict[str, int]) -> None:
    files = {uri: content for uri, content in (GOOD | change).items() if content is not None}
    assert count(files) == Census(**wrong)


def test_rows_that_may_stay_are_not_foreign() -> None:
    extra = data(stem(3, 4, 1, 0), "z") | mark(stem(3, 4, 1, 0))
    assert count(GOOD | extra, may_stay={(SHARD, "z")}) == Census()


def test_only_what_is_required_can_be_lost() -> None:
    half = data(stem(0, 2, 2, 0), "a", "b") | mark(stem(0, 2, 2, 0))
    assert count(half) == Census(lost=1)
    assert count(half, required=[(SHARD, "a"), (SHARD, "b")]) == Census()


def test_other_shards_and_temporary_files_do_not_count() -> None:
    others = {f"{OUT}/data/.{WHOLE}.jsonl.01234567.tmp": b"torn"}
    assert count(GOOD | others) == Census()
    assert census(GOOD, OUT, ["sim://bucket/in/b.tar"], {}) == Census()
