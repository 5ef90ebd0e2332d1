"""Tars: WebDataset's rule for names, the index, entering by seeking, damage."""

import gzip
from pathlib import Path

import pytest

from pipelines.tar_shards import INDEX_STRIDE, index_tar, read_tar, split_name
from tests.inputs import samples, write_tar


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", ("a", "jpg")),
        ("./a.b/c.d/x.Seg.PNG", ("a.b/c.d/x", "seg.png")),
        ("no_extension", None),
        (".hidden", None),
        ("dir/__meta.json", None),
    ],
)
def test_split_name(name: str, expected: tuple[str, str] | None) -> None:
    assert split_name(name) == expected


@pytest.mark.parametrize("compress", [False, True])
def test_any_range_can_be_read(tmp_path: Path, compress: bool) -> None:
    path = str(write_tar(tmp_path / "a.tar", samples(100, prefix="d.x/"), compress))
    index = index_tar(path, compress)
    assert (index.samples, index.damage, index.duplicates) == (100, "", ())
    for start, stop in [(0, 3), (31, 33), (98, 100)]:
        stride = start // INDEX_STRIDE
        seek = (stride * INDEX_STRIDE, index.seek_bytes[stride]) if not compress else (0, 0)
        found = list(read_tar(path, compress, start, stop, *seek))
        assert [(position, key) for position, key, _ in found] == [
            (number, f"d.x/{number:05d}") for number in range(start, stop)
        ]
        assert [member.extension for member in found[0][2]] == ["jpg", "txt"]
        assert found[0][2][1].content == f"caption {start}".encode()


def test_repeated_keys_are_found(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("c.jpg", b"4"), ("c.jpg", b"5")]
    index = index_tar(str(write_tar(tmp_path / "a.tar", members)), False)
    assert (index.samples, index.duplicates) == (5, (2, 4))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("cut", "readable", "why"),
    [
        (lambda raw: raw[: 512 * 9 + 200], 2, "unexpected end"),
        (lambda raw: raw[: 512 * 8], 2, "no end mark"),
        (lambda raw: raw[: 512 * 8] + b"x" * 2000, 2, "no tar header"),
        (lambda raw: b"", 0, "no end mark"),
    ],
)
def test_damage_is_told_and_the_rest_stays_readable(tmp_path: Path, compress, cut, readable, why) -> None:
    members = [(f"{number}.{kind}", b"x" * 300) for number in range(4) for kind in ("jpg", "txt")]
    raw = cut(write_tar(tmp_path / "whole.tar", members).read_bytes())
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(raw) if compress else raw)
    index = index_tar(str(path), compress)
    assert index.samples == readable
    assert why in index.damage
    assert len(list(read_tar(str(path), compress, 0, readable))) == readable


def test_a_tar_that_shrinks_after_planning_is_an_error(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "a.tar", samples(3)))
    with pytest.raises(OSError, match="changed while the job runs"):
        list(read_tar(path, False, 0, 5))
