"""Odd values that users really have: each becomes a row or an error row, and affects no other row."""

import decimal
import json
import random
import string
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.layout import Listing
from pipelines.dataset.row_formats import ROW_FORMATS
from pipelines.engine.blocks import new_block
from pipelines.errors import SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers.parquet_values import key_text
from pipelines.readers.prompts import PromptFiles
from pipelines.samples import Chunk, Columns
from tests.support.estimating import estimate
from tests.support.inputs import encoded_image, write_folder
from tests.support.paths import CASES
from tests.support.reading import assert_all_accounted

TEXT = pa.schema([("caption", pa.string())])
IMAGES = [encoded_image(number, size=(12, 10)) for number in range(4)]


@pytest.mark.parametrize(
    ("name", "columns", "rows", "reasons"),
    [
        ("views", Columns(), [("a", "one"), ("b", "")], {"a": "duplicate key"}),
        ("badutf8", Columns(), [("r0", "good one"), ("r1", "café in Paris"), ("r2", "also good")], {}),
        ("binkey", Columns(), [("abc", ""), ("def", ""), ("é", "")], {}),
        ("uuidkey", Columns(), [(f"00000000-0000-0000-0000-00000000000{number}", "") for number in (1, 2, 3)], {}),
        (
            "capslist",
            Columns(caption="captions"),
            [("capslist/00000000", "first"), ("capslist/00000001", ""), ("capslist/00000002", "")],
            {},
        ),
        ("largecols", Columns(), [("x", "u"), ("y", "v")], {}),
        ("b64", Columns(), [("b64/00000000", "q"), ("b64/00000001", "r")], {}),
    ],
)
def test_files_of_users(
    name: str, columns: Columns, rows: list[tuple[str, str]], reasons: dict[str, str], tmp_path: Path
) -> None:
    ran = estimate([CASES / f"{name}.parquet"], tmp_path / "out", columns)
    assert [(row["key"], row["caption"]) for row in ran.rows] == rows
    assert {key: reason.split(":")[0] for key, reason in ran.reasons.items()} == reasons
    assert ran.code == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dupcols.parquet", "column 'image' is ambiguous: .*/dupcols.parquet has 2 columns of this name"),
        ("arr.jsonl", "/arr.jsonl is one JSON array. Rule: JSON lines"),
    ],
)
def test_files_that_nothing_can_be_read_of_stop_before_work(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        estimate([CASES / name], tmp_path / "out")
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.parametrize("row_format", ["parquet", "webdataset"])
def test_keys_and_captions_with_control_characters_are_written_in_every_format(row_format: str, tmp_path: Path) -> None:
    ran = estimate([CASES / "nulcap.parquet"], tmp_path / "out", row_format=ROW_FORMATS[row_format])
    table = pq.read_table(CASES / "nulcap.parquet").to_pylist()
    assert [(row["key"], row["caption"]) for row in ran.rows] == [(row["key"], row["caption"]) for row in table]
    assert all(row["image"]["bytes"] for row in ran.rows)


def utf8(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """Return an array of texts without checking them."""
    stored = pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary())
    text = pa.Array.from_buffers(pa.large_string() if kind == pa.large_string() else pa.string(), 4, stored.buffers())
    return text.cast(kind) if kind == pa.string_view() else text


BROKEN = [b"caf\xe9", b"\xff\xfe\x00", b"\xed\xa0\x80", None]
ODD: dict[str, pa.Array] = {
    "string": utf8(BROKEN, pa.string()),
    "large_string": utf8(BROKEN, pa.large_string()),
    "string_view": pa.array(["a", "", "c" * 5000, None], pa.string_view()),
    "dictionary": utf8(BROKEN, pa.string()).dictionary_encode(),
    "binary": pa.array([*IMAGES[:2], b"\x00\xff", None], pa.binary()),
    "binary_view": pa.array([*IMAGES[:2], b"", None], pa.binary_view()),
    "fixed_size_binary": pa.array([b"abcd", b"ab\0\0", b"\xff" * 4, None], pa.binary(4)),
    "uuid": pa.array([uuid.UUID(int=number).bytes for number in range(3)] + [None], pa.uuid()),
    "null": pa.nulls(4),
    "bool": pa.array([True, False, True, None]),
    "int": pa.array([2**63 - 1, -1, 0, None]),
    "uint": pa.array([2**64 - 1, 1, 0, None], pa.uint64()),
    "float": pa.array([float("nan"), float("inf"), -0.0, None]),
    "half": pa.array([1.5, 2.5, float("nan"), None], pa.float16()),
    "decimal": pa.array([decimal.Decimal("1.50"), decimal.Decimal(-2), decimal.Decimal(0), None], pa.decimal128(9, 2)),
    "timestamp": pa.array([2**62, -(2**62), 1, None], pa.timestamp("us")),
    "nanoseconds": pa.array([2**40 + 1, 5, 6, None], pa.timestamp("ns", "UTC")),
    "nowhere": pa.array([2**40, 5, 6, None], pa.timestamp("us", "No/Where")),
    "date": pa.array([2**31 - 1, -(2**31), 0, None], pa.date32()),
    "time": pa.array([1, 2, 3, None], pa.time64("ns")),
    "duration": pa.array([2**62, 2, 3, None], pa.duration("ns")),
    "list": pa.array([["a", None], [], [None], None]),
    "fixed_size_list": pa.array([["a", "b"], ["", ""], [None, "c"], None], pa.list_(pa.string(), 2)),
    "bytes_as_list": pa.array([list(IMAGES[0]), [1, 2], [], None], pa.list_(pa.uint8())),
    "nested_list": pa.array([[["a"]], [[]], [None], None]),
    "struct": pa.array([{"bytes": IMAGES[0], "path": "x"}, {"bytes": b"", "path": None}, {}, None]),
    "struct_of_text": pa.StructArray.from_arrays([utf8(BROKEN, pa.string())] * 2, ["bytes", "path"]),
    "map": pa.array([[("a", "b")], [], [("a", None)], None], pa.map_(pa.string(), pa.string())),
    "json": pa.array(["{}", "[", "", None], pa.json_()),
}  # fmt: skip


def test_every_type_in_every_role_is_rows_or_reasons(tmp_path: Path) -> None:
    """Reads one file for each type and role in one run; a file of which nothing matches is one error row."""
    folder = tmp_path / "in"
    folder.mkdir()
    good = {"image": pa.array(IMAGES), "key": pa.array(list("wxyz")), "caption": pa.array(["one", "two", "", "four"])}
    pq.write_table(pa.table(good), folder / "good.parquet")
    for name, column in ODD.items():
        for role in good:
            pq.write_table(pa.table({**good, role: column}), folder / f"{role}-{name}.parquet", store_schema=True)
    ran = estimate([folder], tmp_path / "out", Columns(image="image", key="key", caption="caption"), max_error_rate=1)
    misfits = [error for error in ran.errors if "does not match the settings" in error["reason"]]
    assert_all_accounted(ran, 4 * (1 + 3 * len(ODD)) - 3 * len(misfits))
    assert {error["shard"].rsplit("/", 1)[-1].split("-")[0] for error in misfits} == {"image"}
    of = {name: [row for row in ran.rows if row["shard"].endswith(f"/{name}.parquet")] for name in _stems(folder)}
    for name in ODD:
        assert len(of[f"caption-{name}"]) == 4, f"a caption of type {name} costs no row"
    keys = {name: [row["key"] for row in of[f"key-{name}"]] for name in ODD}
    assert keys["string"] == ["caf\\xe9", "\\xff\\xfe\x00", "\\xed\\xa0\\x80"] == keys["dictionary"]
    assert keys["fixed_size_binary"] == ["abcd", "ab", "ffffffff"]
    assert keys["uuid"][1] == "00000000-0000-0000-0000-000000000001"
    assert keys["int"] == ["9223372036854775807", "-1", "0"] and keys["float"] == ["inf", "-0.0"]
    assert keys["time"] == ["00:00:00.000000001", "00:00:00.000000002", "00:00:00.000000003"]
    assert keys["json"] == ["{}", "[", ""] and keys["timestamp"] == ["1970-01-01 00:00:00.000001"]
    assert keys["decimal"] == ["1.50", "-2.00", "0.00"]
    assert keys["list"] == keys["struct"] == keys["map"] == keys["null"] == []
    assert [len(of[f"image-{name}"]) for name in ("binary", "binary_view", "bytes_as_list", "struct")] == [2, 2, 1, 1]


def _stems(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("*.parquet")]


def test_bytes_that_are_typed_as_text_are_images(tmp_path: Path) -> None:
    as_text = utf8([*IMAGES[:3], None], pa.string())
    for name, column in {"flat": as_text, "nested": pa.StructArray.from_arrays([as_text], ["bytes"])}.items():
        pq.write_table(pa.table({"image": column}), tmp_path / f"{name}.parquet")
        ran = estimate([tmp_path / f"{name}.parquet"], tmp_path / name)
        assert [row["image"]["bytes"] for row in ran.rows] == IMAGES[:3]
        assert len(ran.errors) == 1


def test_a_name_that_is_not_utf8_is_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.jpg").write_bytes(IMAGES[0])
    column = utf8([b"caf\xe9.jpg", b"absent\xe9.jpg", None, None], pa.string())
    pq.write_table(pa.table({"url": column}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(b'{"image": "caf\xe9.jpg", "caption": "caf\xe9 in Paris"}\n{"image": "\xff"}\n')
    for name in ("a.parquet", "b.jsonl"):
        ran = estimate([tmp_path / name], tmp_path / f"out-{name}")
        assert [row["image"]["bytes"] for row in ran.rows] == [IMAGES[0]]
        assert ran.rows[0]["image"]["path"] == "caf\\xe9.jpg"
    assert ran.rows[0]["caption"] == "café in Paris"


def odd_values(rng: random.Random) -> Any:
    """Return a random value of any JSON type."""
    letters = string.printable + "é\u202e\ud800\udcff\0"
    text = "".join(rng.choice(letters) for _ in range(rng.choice([0, 1, 5, 500])))
    plain = [None, True, 0, -1, 1e308, float("nan"), float("inf"), 10**400, text, "a.jpg", "\ud800.jpg", "x" * 5000]
    value = rng.choice([*plain, "data:,x", "http://[", "s3://", "file:///nowhere", "\udc80"])
    return rng.choice(
        [value, value, [value, value], {"path": value}, {"bytes": value, "x": [value]}, [[[value]]], [], {}]
    )


def odd_lines(count: int, fields: Sequence[str]) -> list[bytes]:
    """Return good lines that alternate with lines of odd values."""
    rng = random.Random(0)
    lines = []
    for number in range(count):
        lines.append(json.dumps({"key": f"good {number}", "image": "a.jpg", "caption": "x", "prompt": "x"}).encode())
        odd = {field: odd_values(rng) for field in fields if rng.random() < 0.7}
        line = json.dumps(odd, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        lines.append(
            rng.choice([line, line, line, line, line.replace(b"a", b"\xff"), b"[" * 5000, line[:-1], b"9" * 5000])
        )
    return lines


def test_json_lines_of_anything_cost_their_own_row_alone(tmp_path: Path) -> None:
    lines = odd_lines(60, ("image", "key", "caption", "text", "url", "path"))
    write_folder(tmp_path, {"a.jpg": IMAGES[0], "list.jsonl": b"\n".join(lines)})
    for row_format in ROW_FORMATS.values():
        output = tmp_path / row_format.name
        ran = estimate([tmp_path / "list.jsonl"], output, row_format=row_format, max_error_rate=1, chunk_size=50)
        assert_all_accounted(ran, len(lines))
        assert {f"good {number}" for number in range(60)} <= {row["key"] for row in ran.rows}


def test_what_is_a_key() -> None:
    digest = bytes(range(128, 144))
    texts = {
        "a": "a",
        b"abc": "abc",
        "é".encode(): "é",
        digest: digest.hex(),
        b"\x01\x02": "0102",
        7: "7",
        True: "True",
    }
    assert {value: key_text(value) for value in texts} == texts
    assert key_text(None) is key_text(float("nan")) is None
    for value in (["a"], {"a": 1}, ("a",)):
        with pytest.raises(ValueError, match="a key is one text or number"):
            key_text(value)


def test_prompts_of_anything_cost_their_own_row_alone(tmp_path: Path) -> None:
    lines = odd_lines(60, ("prompt", "text", "caption"))
    rng = random.Random(1)
    texts = [b"good" if number % 2 else rng.randbytes(40).replace(b"\n", b"") or b"x" for number in range(100)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.txt").write_bytes(b"\n".join(texts))
    (tmp_path / "c.txt").write_bytes("one é\r\n\r\ntwo\r\n".encode("utf-16"))
    for name, column in ODD.items():
        pq.write_table(pa.table({"prompt": column}), tmp_path / f"prompt-{name}.parquet")
        pq.write_table(pa.table({"prompt": list("wxyz"), "key": column}), tmp_path / f"key-{name}.parquet")
    source = PromptFiles()
    measured = source.measure(source.find([str(tmp_path)], "/nowhere"), "/nowhere", None)
    found = {}
    for chunk in make_plan(measured, Listing(finished=(), remains=()), "c" * 10, 50).chunks:
        samples = list(source.read(Chunk.from_json(chunk.to_json())))
        assert tuple(sample.position for sample in samples) == chunk.positions
        assert all(sample.caption or sample.problem for sample in samples)
        new_block(
            chunk, [{"position": each.position, "key": each.key, "caption": each.caption} for each in samples], TEXT
        )
        found.setdefault(chunk.shard_uri.rsplit("/", 1)[-1], []).extend(samples)
    assert [sample.caption for sample in found["c.txt"]] == ["one é", "two"]
    assert [sample.caption for sample in found["b.txt"]][1::2] == ["good"] * 50
    assert [sample.caption for sample in found["a.jsonl"]][::2] == ["x"] * 60
    for name in ODD:
        assert len(found[f"prompt-{name}.parquet"]) == len(found[f"key-{name}.parquet"]) == 4
    assert [sample.key for sample in found["key-uuid.parquet"]][1] == "00000000-0000-0000-0000-000000000001"
    assert [sample.caption for sample in found["prompt-list.parquet"]][0] == "a"


def test_a_doubled_column_that_can_be_no_caption_does_no_harm(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(IMAGES), *[pa.array([1] * 4)] * 2], names=["image", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(estimate([tmp_path / "a.parquet"], tmp_path / "out").rows) == 4
