"""Damaged files of every format: planning goes on, chunks end, and what can be read is read."""

import errno
import gzip
import io
import json
import random
import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.damage import is_damage, reason_of
from pipelines.dataset.layout import Listing
from pipelines.errors import SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers import parquet_files
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.references import read_ahead
from pipelines.readers.sources import PictureShards, Repeated, Source
from pipelines.readers.strict_tar import MAX_HEADER_BYTES
from pipelines.readers.tar import index_tar
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.errors import StorageError
from pipelines.storage.store import FsspecStore
from pipelines.texts import FOREIGN_CHARS, clipped
from tests.support.inputs import samples, write_folder, write_parquet, write_tar

KEYS = [f"{number:05d}" for number in range(25)]
IMAGES = [random.Random(number).randbytes(60) for number in range(25)]
PICTURES = PictureShards(columns=Columns())


def read_all(source: Source, path: Path, chunk_size: int = 10) -> list[Sample]:
    """Plan and read; every position must come exactly once."""
    output = str(path.parent / "out")
    measured = source.measure(source.find([str(path)], output), output, None)
    found: list[Sample] = []
    for chunk in make_plan(measured, Listing(finished=(), remains=()), "c" * 16, chunk_size).chunks:
        part = list(source.read(Chunk.from_json(chunk.to_json())))
        assert tuple(sample.position for sample in part) == chunk.positions
        found += part
    return found


def reasons(found: Sequence[Sample]) -> list[str]:
    return ["" if sample.problem is None else sample.problem.reason for sample in found]


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
WHERE = PictureShards(columns=Columns(where=("width>=5", "caption!=x")))
COPIES = Repeated(source=PICTURES, copies=2, option="--images-per-row")
FORMATS: dict[str, tuple[bytes, str, Source]] = {
    "tar": (tar_of(tarfile.USTAR_FORMAT), ".tar", PICTURES),
    "GNU tar": (tar_of(tarfile.GNU_FORMAT, LONG), ".tar", PICTURES),
    "pax tar": (tar_of(tarfile.PAX_FORMAT, LONG), ".tar", PICTURES),
    "compressed tar": (gzip.compress(tar_of(tarfile.USTAR_FORMAT)), ".tar.gz", PICTURES),
    "compressed pax tar": (gzip.compress(tar_of(tarfile.PAX_FORMAT, LONG)), ".tgz", PICTURES),
    "copies of a tar": (tar_of(tarfile.USTAR_FORMAT), ".tar", COPIES),
    "tar with masks": (
        tar_of(tarfile.USTAR_FORMAT),
        ".tar",
        PictureShards(columns=Columns(media=("txt",)), media_options={"txt": "--mask-column txt"}),
    ),
    "Parquet": (parquet_of(ROWS), ".parquet", PICTURES),
    "plain Parquet": (parquet_of(ROWS, **PLAIN), ".parquet", PICTURES),
    "Parquet with conditions": (parquet_of(ROWS), ".parquet", WHERE),
    "nested Parquet": (parquet_of(NESTED), ".pq", PictureShards(columns=Columns(image="views.0", key="id.n"))),
    "Parquet of URIs": (parquet_of({"url": [f"{key}.jpg" for key in KEYS]}), ".parquet", PICTURES),
    "copies of Parquet": (parquet_of(ROWS), ".parquet", COPIES),
    "JSON lines": (lines_of("image", ".jpg"), ".jsonl", PICTURES),
    "JSON lines, fields named": (
        lines_of("image", ".jpg"),
        ".jsonl",
        PictureShards(columns=Columns(image="image", key="key")),
    ),
    "prompts": ("\n".join(f"é {key}" for key in KEYS).encode(), ".txt", PromptFiles()),
    "prompts in JSON lines": (lines_of("prompt"), ".jsonl", PromptFiles()),
    "prompts in Parquet": (parquet_of(PROMPTS), ".parquet", PromptFiles()),
    "prompts in plain Parquet": (parquet_of(PROMPTS, **PLAIN), ".parquet", PromptFiles()),
}


def damaged(good: bytes, rng: random.Random) -> bytes:
    """Cut short, or with a few bytes changed: half of the time near the end, where Parquet has its footer."""
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
    found = read_all(PictureShards(columns=Columns(where=where)), path, chunk_size=7)
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
    bad = [sample.position for sample in read_all(PICTURES, path) if sample.problem is not None]
    assert bad[-1] == 99 and 45 <= bad[0] <= 50 and bad == [*range(bad[0], 100)]


def test_text_that_is_no_text_costs_neither_its_row_nor_its_neighbors(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_of({**ROWS, "caption": [f"caption {key}" for key in KEYS]}, **PLAIN))
    path.write_bytes(path.read_bytes().replace(b"caption 00007", b"caption \xff0007"))
    found = read_all(PICTURES, path)
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
        found = read_all(PictureShards(columns=columns), path)
        told += [reason for reason in reasons(found) if "two names" in reason]
    assert told
    write_parquet(path, {"picture": [b"1"], "size": [1]})
    with pytest.raises(SettingError, match="--image-column 'image' is not in"):
        read_all(PictureShards(columns=columns), path)


def test_a_footer_that_claims_too_much_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.parquet"
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.seek(3 << 30)
        file.write(struct.pack("<I", (3 << 30) - 100) + b"PAR1")
    (sample,) = read_all(PICTURES, path)
    assert reasons([sample]) == [
        "the parquet file cannot be read: its footer claims to have 3221225372 bytes; the limit is 134217728"
    ]
    monkeypatch.setattr(parquet_files, "MAX_ROWS", 24)
    (tmp_path / "a.parquet").write_bytes(parquet_of(ROWS))
    assert "speaks of 25 rows" in reasons(read_all(PICTURES, tmp_path / "a.parquet"))[0]


def test_a_damaged_shard_does_not_stop_the_others(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(2))
    write_folder(tmp_path / "in", {"b.parquet": b"junk", "c.tar": b"junk" * 300, "d.tar.gz": b"\x1f\x8bjunk"})
    write_parquet(tmp_path / "in" / "e.parquet", {"image": [b"1", b"2"], "key": ["x", "y"]})
    found = read_all(PICTURES, tmp_path / "in")
    rests = [f"{name}#rest" for name in ("b.parquet", "c.tar", "d.tar.gz")]
    assert [sample.key for sample in found] == ["00000", "00001", *rests, "x", "y"]
    assert [sample.problem is not None for sample in found] == [False] * 2 + [True] * 3 + [False] * 2


def headers(*infos: tarfile.TarInfo) -> bytes:
    return b"".join(info.tobuf(tarfile.GNU_FORMAT) for info in infos)


def info_of(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_to_be_huge_is_not_loaded(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(headers(info_of("a.jpg"), info_of("x", kind, 5 << 30)))
        file.truncate(6 << 30)
    index = index_tar(str(path), False)
    assert (index.samples, f"a header of {5 << 30} bytes" in index.damage) == (1, True)
    assert MAX_HEADER_BYTES < 1 << 20


@pytest.mark.parametrize("how", ["header", "pax"])
def test_a_negative_size_does_not_go_round_in_circles(tmp_path: Path, how: str) -> None:
    if how == "header":
        content = headers(info_of("a.jpg"), info_of("b.jpg", size=-512), info_of("c.jpg"))
    else:
        record = b"13 size=-1024\n"
        pax = headers(info_of("x", tarfile.XHDTYPE, len(record))) + record.ljust(512, b"\0")
        content = headers(info_of("a.jpg")) + pax + headers(info_of("b.jpg"), info_of("c.jpg"))
    path = tmp_path / "a.tar"
    path.write_bytes(content + bytes(1024))
    index = index_tar(str(path), False)
    assert index.samples <= 2 and index.damage
    assert [sample.key for sample in read_all(PICTURES, path)][0] == "a"


def test_a_member_whose_content_cannot_be_read_is_one_sample(tmp_path: Path) -> None:
    """A sparse file says where its pieces belong; that is looked at when its content is."""
    sparse = bytearray(info_of("b.jpg", tarfile.GNUTYPE_SPARSE, 512).tobuf(tarfile.GNU_FORMAT))
    sparse[386:398], sparse[398:410] = b"00000000000\0", b"00000100000\0"  # a piece of 32,768 bytes at 0
    sparse[483:495] = b"00000100000\0"  # the whole file has as many, but the tar holds 512 of them
    sparse[148:156] = b" " * 8
    sparse[148:156] = f"{sum(sparse):06o}\0 ".encode()
    last = info_of("c.jpg", size=1)
    path = tmp_path / "a.tar"
    whole = headers(info_of("a.jpg", size=1)) + b"1".ljust(512, b"\0") + bytes(sparse) + b"x" * 512
    path.write_bytes(whole + headers(last) + b"3".ljust(512, b"\0") + bytes(1024))
    found = read_all(PICTURES, path)
    assert [sample.key for sample in found] == ["a", "b", "c"]
    assert [sample.image for sample in found] == [b"1", b"", b"3"]
    assert reasons(found)[1] == "the image file cannot be read: unexpected end of data"


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
    found = read_all(PICTURES, tmp_path / "list.jsonl")
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


@dataclass(frozen=True)
class Failing(FsspecStore):
    """A storage that fails at some read of some files."""

    make_error: Callable[[], Exception] = OSError
    suffix: str = ""
    reads: int = 0

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        file = super().open_read(uri, block_size_bytes)
        return io.BufferedReader(_FailingFile(file, self)) if uri.endswith(self.suffix) else file


class _FailingFile(io.RawIOBase):
    def __init__(self, file: IO[bytes], store: Failing) -> None:
        self.file, self.store, self.left = file, store, store.reads

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.store.make_error()
        content = self.file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


@pytest.mark.parametrize("error", [StorageError("away", "unreachable"), OSError(errno.EIO, "broken disk")])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".parquet", ".jsonl"])
@pytest.mark.parametrize("reads", [0, 1, 2])
def test_a_storage_that_fails_is_no_damage(tmp_path: Path, error: OSError, suffix: str, reads: int) -> None:
    large = [random.Random(number).randbytes(20_000) for number in range(40)]
    members = [(f"{number:02d}.jpg", image) for number, image in enumerate(large)]
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "a.tar.gz", members, compress=True)
    write_parquet(tmp_path / "a.parquet", {"image": large, "key": [name for name, _ in members]}, row_group=4)
    write_folder(tmp_path, {"a.jsonl": b"\n".join(b'{"image": "absent.jpg"}' for _ in range(10_000))})
    source = PictureShards(columns=Columns(), store=Failing(make_error=lambda: error, suffix=suffix, reads=reads))
    with pytest.raises(OSError) as caught:
        read_all(source, tmp_path / f"a{suffix}")
    assert caught.value is error


def test_what_counts_as_damage() -> None:
    ours = [SettingError("x"), StorageError("x"), OSError(errno.EIO, "x"), FileNotFoundError("x")]
    content = [OSError("no magic"), KeyError("x"), MemoryError(), OverflowError(), pa.ArrowInvalid("x")]
    assert [is_damage(error) for error in (*ours, *content)] == [False] * 4 + [True] * 5
    assert reason_of(MemoryError()) == "MemoryError"
    assert clipped("a\n\tb \udcff" + "x" * 1000) == ("a b \\xff" + "x" * 1000)[: FOREIGN_CHARS - 3] + "..."


def test_results_come_in_order_when_one_fails() -> None:
    def read(number: int) -> int:
        if number == 3:
            raise StorageError("away")
        return number

    found = []
    with pytest.raises(StorageError):
        for number in read_ahead(read, range(6)):
            found.append(number)
    assert found == [0, 1, 2]
