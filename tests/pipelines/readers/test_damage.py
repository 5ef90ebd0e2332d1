"""Damaged files of every format: planning continues, chunks finish, and everything readable is read."""

import errno
import gzip
import io
import json
import random
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import FOREIGN_CHARS, SettingError, clipped
from pipelines.readers import parquet_files
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.sources import ImageShards, Repeated, Source
from pipelines.samples import Columns
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.errors import StorageError
from tests.support.inputs import samples, write_folder, write_parquet, write_tar
from tests.support.reading import read_all, reasons

KEYS = [f"{number:05d}" for number in range(25)]
IMAGES = [random.Random(number).randbytes(60) for number in range(25)]
IMAGE_SHARDS = ImageShards(columns=Columns())


def tar_of(form: int, prefix: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for key in KEYS:
            for extension in ("jpg", "txt"):
                info = tarfile.TarInfo(f"{prefix}{key}.{extension}")
                info.size = 30
                tar.addfile(info, io.BytesIO(b"x" * 30))
    return buffer.getvalue()


def parquet_of(columns: Mapping[str, Sequence[object]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), buffer, row_group_size=10, **options)
    return buffer.getvalue()


def lines_of(field: str, ending: str = "") -> bytes:
    return "\n".join(json.dumps({field: f"{key}{ending}", "key": key}) for key in KEYS).encode()


LONG = "d" * 120 + "/"
ROWS = {"image": IMAGES, "key": KEYS, "caption": [f"é {key}" for key in KEYS], "width": list(range(25))}
NESTED = {"views": [[{"bytes": image, "path": "x"}] for image in IMAGES], "id": [{"n": key} for key in KEYS]}
PROMPTS = {"prompt": [f"é {key}" for key in KEYS], "key": KEYS}
PLAIN = {"compression": "none", "use_dictionary": False}
WHERE = ImageShards(columns=Columns(where=("width>=5", "caption!=x")))
COPIES = Repeated(source=IMAGE_SHARDS, copies=2, option="--images-per-row")
FORMATS: dict[str, tuple[bytes, str, Source]] = {
    "tar": (tar_of(tarfile.USTAR_FORMAT), ".tar", IMAGE_SHARDS),
    "GNU tar": (tar_of(tarfile.GNU_FORMAT, LONG), ".tar", IMAGE_SHARDS),
    "pax tar": (tar_of(tarfile.PAX_FORMAT, LONG), ".tar", IMAGE_SHARDS),
    "compressed tar": (gzip.compress(tar_of(tarfile.USTAR_FORMAT)), ".tar.gz", IMAGE_SHARDS),
    "compressed pax tar": (gzip.compress(tar_of(tarfile.PAX_FORMAT, LONG)), ".tgz", IMAGE_SHARDS),
    "copies of a tar": (tar_of(tarfile.USTAR_FORMAT), ".tar", COPIES),
    "tar with masks": (
        tar_of(tarfile.USTAR_FORMAT),
        ".tar",
        ImageShards(columns=Columns(media=("txt",)), media_options={"txt": "--mask-column txt"}),
    ),
    "Parquet": (parquet_of(ROWS), ".parquet", IMAGE_SHARDS),
    "plain Parquet": (parquet_of(ROWS, **PLAIN), ".parquet", IMAGE_SHARDS),
    "Parquet with conditions": (parquet_of(ROWS), ".parquet", WHERE),
    "nested Parquet": (parquet_of(NESTED), ".pq", ImageShards(columns=Columns(image="views.0", key="id.n"))),
    "Parquet of URIs": (parquet_of({"url": [f"{key}.jpg" for key in KEYS]}), ".parquet", IMAGE_SHARDS),
    "copies of Parquet": (parquet_of(ROWS), ".parquet", COPIES),
    "JSON lines": (lines_of("image", ".jpg"), ".jsonl", IMAGE_SHARDS),
    "JSON lines, fields named": (
        lines_of("image", ".jpg"),
        ".jsonl",
        ImageShards(columns=Columns(image="image", key="key")),
    ),
    "prompts": ("\n".join(f"é {key}" for key in KEYS).encode(), ".txt", PromptFiles()),
    "prompts in JSON lines": (lines_of("prompt"), ".jsonl", PromptFiles()),
    "prompts in Parquet": (parquet_of(PROMPTS), ".parquet", PromptFiles()),
    "prompts in plain Parquet": (parquet_of(PROMPTS, **PLAIN), ".parquet", PromptFiles()),
}


def damaged(good: bytes, rng: random.Random) -> bytes:
    """Cut a file short, or change a few bytes, half of the time near the end, where Parquet has its footer."""
    content = bytearray(good)
    if rng.random() < 0.2:
        return bytes(content[: rng.randrange(len(content))])
    first = rng.choice([0, max(0, len(content) - 1500)])
    for _ in range(rng.choice([1, 1, 4])):
        content[rng.randrange(first, len(content))] = rng.randrange(256)
    return bytes(content)


@pytest.mark.parametrize("name", FORMATS)
def test_no_damage_stops_planning_or_fails_a_chunk(name: str, tmp_path: Path) -> None:
    good, suffix, source = FORMATS[name]
    for seed in range(30):
        path = tmp_path / f"{seed}{suffix}"
        path.write_bytes(damaged(good, random.Random(f"{name} {seed}")))
        for reason in reasons(read_all(source, path)):
            assert len(reason) < 2 * FOREIGN_CHARS


def damage_page(path: Path, needle: bytes) -> None:
    """Destroy the page that holds some bytes."""
    content = bytearray(path.read_bytes())
    at = content.index(needle)
    content[at - 40 : at + len(needle)] = b"\xff" * (40 + len(needle))
    path.write_bytes(content)


@pytest.mark.parametrize("where", [(), ("width>=0",)])
def test_a_damaged_page_costs_the_rows_of_its_row_group(tmp_path: Path, where: tuple[str, ...]) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_of(ROWS, **PLAIN))
    damage_page(path, IMAGES[10] + struct.pack("<I", 60))
    found = read_all(ImageShards(columns=Columns(where=where)), path, chunk_size=7)
    bad = [sample.problem is not None for sample in found]
    assert bad == [10 <= position < 20 for position in range(25)]
    assert [sample.key for sample in found] == KEYS, "keys that can be read stay those of their rows"
    assert all(reason == "" or reason.startswith("the Parquet data cannot be read: ") for reason in reasons(found))
    assert [sample.image for sample in found if sample.problem is None] == [*IMAGES[:10], *IMAGES[20:]]


def test_rows_before_the_damage_within_a_row_group_are_read(tmp_path: Path) -> None:
    images = [bytes([number]) * 3000 for number in range(100)]
    path = tmp_path / "a.parquet"
    table = pa.table({"image": images, "key": [str(number) for number in range(100)]})
    pq.write_table(table, path, row_group_size=100, data_page_size=10_000, write_batch_size=1, **PLAIN)
    content = bytearray(path.read_bytes())
    at = content.index(images[50])
    content[at - 4 : at] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    bad = [sample.position for sample in read_all(IMAGE_SHARDS, path) if sample.problem is not None]
    assert bad[-1] == 99 and 45 <= bad[0] <= 50 and bad == [*range(bad[0], 100)]


def test_text_that_is_no_text_costs_neither_its_row_nor_its_neighbors(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_of({**ROWS, "caption": [f"caption {key}" for key in KEYS]}, **PLAIN))
    path.write_bytes(path.read_bytes().replace(b"caption 00007", b"caption \xff0007"))
    found = read_all(IMAGE_SHARDS, path)
    assert [sample.key for sample in found] == KEYS and reasons(found) == [""] * 25
    assert [sample.key for sample in found if sample.caption_note] == ["00007"]
    assert "not UTF-8" in found[7].caption_note and found[7].caption == "caption \xff0007"


@pytest.mark.parametrize("name", ["image", "width"])
def test_a_column_whose_name_is_damaged_is_damage_and_one_that_is_not_there_is_a_setting(
    tmp_path: Path, name: str
) -> None:
    columns = Columns(image="image", where=("width>1",))
    content = parquet_of(ROWS)
    places = [at for at in range(len(content)) if content.startswith(name.encode(), at)]
    path = tmp_path / "a.parquet"
    told = []
    for at in places:
        path.write_bytes(content[:at] + b"X" + content[at + 1 :])
        found = read_all(ImageShards(columns=columns), path)
        told += [reason for reason in reasons(found) if "two names" in reason]
    assert told
    write_parquet(path, {"picture": [b"1"], "size": [1]})
    with pytest.raises(SettingError, match="--image-column 'image' is not in"):
        read_all(ImageShards(columns=columns), path)


def test_a_footer_that_claims_too_much_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.parquet"
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.seek(3 << 30)
        file.write(struct.pack("<I", (3 << 30) - 100) + b"PAR1")
    (sample,) = read_all(IMAGE_SHARDS, path)
    assert reasons([sample]) == [
        "the parquet file cannot be read: its footer claims to have 3221225372 bytes; the limit is 134217728"
    ]
    monkeypatch.setattr(parquet_files, "MAX_ROWS", 24)
    (tmp_path / "a.parquet").write_bytes(parquet_of(ROWS))
    assert "counts 25 rows" in reasons(read_all(IMAGE_SHARDS, tmp_path / "a.parquet"))[0]


def test_a_damaged_shard_does_not_stop_the_others(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(2))
    write_folder(tmp_path / "in", {"b.parquet": b"junk", "c.tar": b"junk" * 300, "d.tar.gz": b"\x1f\x8bjunk"})
    write_parquet(tmp_path / "in" / "e.parquet", {"image": [b"1", b"2"], "key": ["x", "y"]})
    found = read_all(IMAGE_SHARDS, tmp_path / "in")
    rests = [f"{name}#rest" for name in ("b.parquet", "c.tar", "d.tar.gz")]
    assert [sample.key for sample in found] == ["00000", "00001", *rests, "x", "y"]
    assert [sample.problem is not None for sample in found] == [False] * 2 + [True] * 3 + [False] * 2


def test_lines_nobody_can_understand_are_error_rows(tmp_path: Path) -> None:
    lines = [
        '{"image": "a.jpg", "key": "a"}',
        "[" * 100_000,
        '{"image": ' + "9" * 5000 + "}",
        '{"image": ["' + "x" * 100_000 + '"]}',
        '{"image": "s3://Not A Bucket/a.jpg"}',
        '{"image": "zip://a::b"}',
        '{"image": "/dev/zero"}',
        '{"key": {"deep": ' + "[" * 300 + "]" * 300 + "}}",
        json.dumps({f"field {number}": 1 for number in range(1000)}),
        '{"image": "a.jpg", "key": "b"}',
    ]
    write_folder(tmp_path, {"a.jpg": b"1", "list.jsonl": "\n".join(lines).encode()})
    found = read_all(IMAGE_SHARDS, tmp_path / "list.jsonl")
    assert [sample.problem is None for sample in found] == [True, *[False] * 8, True]
    assert all(len(reason) < 2 * FOREIGN_CHARS for reason in reasons(found))


def test_prompts_nobody_can_understand_are_error_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.readers.json_lines.MAX_LINE_BYTES", 1000)
    write_folder(tmp_path, {"a.txt": b"one\n" + b"x" * 5000 + b"\ntwo", "b.jsonl": b'"one"\n' + b"[" * 900 + b"\n\xff"})
    assert [reason[:35] for reason in reasons(read_all(PromptFiles(), tmp_path / "a.txt"))] == [
        "", "the line is longer than 1000 bytes", ""
    ]  # fmt: skip
    found = read_all(PromptFiles(), tmp_path / "b.jsonl")
    assert [sample.problem is None for sample in found] == [True, False, False]


def test_what_counts_as_damage() -> None:
    ours = [SettingError("x"), StorageError("x"), OSError(errno.EIO, "x"), FileNotFoundError("x")]
    content = [OSError("no magic"), KeyError("x"), MemoryError(), OverflowError(), pa.ArrowInvalid("x")]
    assert [is_damage(error) for error in (*ours, *content)] == [False] * 4 + [True] * 5
    assert reason_of(MemoryError()) == "MemoryError"
    assert clipped("a\n\tb \udcff" + "x" * 1000) == ("a b \\xff" + "x" * 1000)[: FOREIGN_CHARS - 3] + "..."
