"""Damaged headers of tars: huge ones, negative sizes, and sparse files that are incomplete."""

import tarfile
from pathlib import Path

import pytest

from pipelines.readers.sources import ImageShards
from pipelines.readers.strict_tar import MAX_HEADER_BYTES
from pipelines.readers.tar import index_tar
from pipelines.samples import Columns
from tests.support.reading import read_all, reasons

IMAGE_SHARDS = ImageShards(columns=Columns())


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
    assert [sample.key for sample in read_all(IMAGE_SHARDS, path)][0] == "a"


def test_a_member_whose_content_cannot_be_read_is_one_sample(tmp_path: Path) -> None:
    """A sparse file contains a map of its pieces, which is read only with its content."""
    sparse = bytearray(info_of("b.jpg", tarfile.GNUTYPE_SPARSE, 512).tobuf(tarfile.GNU_FORMAT))
    sparse[386:398], sparse[398:410] = b"00000000000\0", b"00000100000\0"  # a piece of 32,768 bytes at 0
    sparse[483:495] = b"00000100000\0"  # the size of the whole file, of which the tar holds 512 bytes
    sparse[148:156] = b" " * 8
    sparse[148:156] = f"{sum(sparse):06o}\0 ".encode()
    last = info_of("c.jpg", size=1)
    path = tmp_path / "a.tar"
    whole = headers(info_of("a.jpg", size=1)) + b"1".ljust(512, b"\0") + bytes(sparse) + b"x" * 512
    path.write_bytes(whole + headers(last) + b"3".ljust(512, b"\0") + bytes(1024))
    found = read_all(IMAGE_SHARDS, path)
    assert [sample.key for sample in found] == ["a", "b", "c"]
    assert [sample.image for sample in found] == [b"1", b"", b"3"]
    assert reasons(found)[1] == "the image file cannot be read: unexpected end of data"
