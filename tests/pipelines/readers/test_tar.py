"""Tars: WebDataset's rule for names, the index, seeking, damage, and unusual members."""

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset.layout import Listing
from pipelines.planning.plan import make_plan
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.references import MAX_FILE_BYTES
from pipelines.readers.shard_index import INDEX_STRIDE
from pipelines.readers.shards import find_shards
from pipelines.readers.tar import Member, index_tar, read_tar, split_name
from pipelines.samples import Columns, Sample
from tests.support.inputs import samples, write_sparse_tar, write_tar


def read_all(path: Path, compressed: bool = False, **options) -> list[tuple[str, list[Member]]]:
    index = index_tar(str(path), compressed)
    return [(key, members) for _, key, members in read_tar(str(path), compressed, 0, index.samples, **options)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", ("a", "jpg")),
        ("./a.b/c.d/x.Seg.PNG", ("a.b/c.d/x", "seg.png")),
        ("no_extension", None),
        (".hidden", None),
        ("dir/__meta.json", None),
        ("__MACOSX/a/._x.jpg", None),
        ("a\nb.JPEG", ("a\nb", "jpeg")),
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
def test_damage_is_reported_and_the_rest_stays_readable(tmp_path: Path, compress, cut, readable, why) -> None:
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


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_folders_and_links(tmp_path: Path, form: int) -> None:
    long = "folder/" * 13 + "n" * 90 if form == tarfile.USTAR_FORMAT else "folder/" * 40 + "n" * 200 + "é"
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        add(tar, "folder", kind=tarfile.DIRTYPE)
        add(tar, f"{long}.jpg", b"1")
        add(tar, f"{long}.txt", b"long")
        add(tar, "link.jpg", kind=tarfile.SYMTYPE, target="last.jpg")
        add(tar, "hard.jpg", kind=tarfile.LNKTYPE, target="last.jpg")
        add(tar, "hard.txt", b"text")
        add(tar, "pipe.jpg", kind=tarfile.FIFOTYPE)
        add(tar, "last.jpg", b"2")
    found = read_all(path)
    assert [key for key, _ in found] == [long, "link", "hard", "last"]
    assert [member.content for _, members in found for member in members] == [b"1", b"long", None, None, b"text", b"2"]
    assert "is a link to" in found[1][1][0].problem
    assert all(list(read_tar(str(path), False, at, at + 1))[0][1] == key for at, (key, _) in enumerate(found))


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    tar.addfile(info, io.BytesIO(content))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        add(tar, "caf\xe9.jpg", b"1")
    ((key, _),) = read_all(path)
    assert key == "caf\\xe9"


@pytest.mark.parametrize("compress", [False, True])
def test_empty_tars(tmp_path: Path, compress: bool) -> None:
    index = index_tar(str(write_tar(tmp_path / "a.tar", [], compress)), compress)
    assert (index.samples, index.damage) == (0, "")


def test_a_tar_without_samples_says_so(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("README", b"1"), ("IMG0001", b"2")])
    assert "one is called 'IMG0001'" in index_tar(str(path), False).damage
    with tarfile.open(path, "w") as tar:
        add(tar, "only/folders", kind=tarfile.DIRTYPE)
    assert index_tar(str(path), False).damage == ""


def test_only_wanted_members_are_loaded(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.mp4", b"video"), ("a.jpg", b"1")])
    ((_, members),) = read_all(path, is_wanted=lambda extension: extension == "jpg")
    assert [(member.extension, member.content) for member in members] == [("mp4", None), ("jpg", b"1")]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("compress", [False, True])
def test_any_damage_leaves_a_plan_that_can_be_read(tmp_path: Path, compress: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(40):
            add(tar, f"é{number:03d}" + "n" * (seed % 3) * 60 + ".jpg", rng.bytes(int(rng.integers(0, 2000))))
    raw = bytearray(gzip.compress(path.read_bytes(), 1) if compress else path.read_bytes())
    for at in rng.integers(0, len(raw), 3):
        raw[at] = int(rng.integers(256))
    if seed % 2:
        del raw[int(rng.integers(len(raw))) :]
    path.write_bytes(raw)
    index = index_tar(str(path), compress)
    assert index.samples == len(list(read_tar(str(path), compress, 0, index.samples)))
    for start in range(0, index.samples, 16):
        stride = start // INDEX_STRIDE
        seek = (stride * INDEX_STRIDE, index.seek_bytes[stride]) if not compress else (0, 0)
        stop = min(start + 16, index.samples)
        assert [at for at, _, _ in read_tar(str(path), compress, start, stop, *seek)] == [*range(start, stop)]


def read_samples(path: Path, tmp_path: Path, columns: Columns | None = None) -> list[Sample]:
    columns = columns or Columns()
    plan = make_plan(
        measure(find_shards([str(path)]), columns, str(tmp_path / "out")), Listing(finished=(), remains=()), "c" * 10, 3
    )
    return [sample for chunk in plan.chunks for sample in read_chunk(chunk, columns)]


def test_members_of_a_sample_that_are_apart(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"one"), ("b.txt", b"two"), ("a.jpg", b"3")]
    found = read_samples(write_tar(tmp_path / "a.tar", members), tmp_path)
    reasons = ["" if sample.problem is None else sample.problem.reason for sample in found]
    assert reasons[:2] == ["", ""]
    assert all("members of one sample must be neighbors" in reason for reason in reasons[2:4])
    assert reasons[4].startswith("duplicate key")


def test_several_images_of_one_sample_must_be_named(tmp_path: Path) -> None:
    members = [("a.left.jpg", b"1"), ("a.right.JPG", b"2"), ("b.jpg", b"3"), ("b.mask.png", b"4"), ("c.only.PNG", b"5")]
    path = write_tar(tmp_path / "a.tar", members)
    found = read_samples(path, tmp_path)
    assert [sample.image for sample in found if sample.problem is None] == [b"3", b"5"]
    assert found[0].problem is not None
    assert "no plain image member but 2 others, none of them named: .left.jpg, .right.jpg" in found[0].problem.reason
    assert read_samples(path, tmp_path, Columns(image="right.jpg"))[0].image == b"2"


def test_tars_under_the_wrong_name_are_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "packed.tar", samples(5), compress=True)
    write_tar(tmp_path / "in" / "plain.tgz", samples(5, prefix="p"))
    found = read_samples(tmp_path / "in", tmp_path)
    assert [sample.key for sample in found] == [f"{p}{n:05d}" for p in ("", "p") for n in range(5)]
    assert all(sample.problem is None and sample.caption for sample in found)


def peak_bytes(work) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_member_of_five_gigabytes_is_skipped(tmp_path: Path) -> None:
    path = write_sparse_tar(tmp_path / "a.tar", [("a.jpg", 5 << 30), ("b.jpg", 1000)])
    found: list[tuple[str, list[Member]]] = []
    assert peak_bytes(lambda: found.extend(read_all(path))) < 4 << 20
    assert [key for key, _ in found] == ["a", "b"]
    assert found[0][1][0] == Member(
        "jpg", "a.jpg", None, f"is larger than {MAX_FILE_BYTES} bytes, alone or with its neighbors"
    )
    assert found[1][1][0].content == bytes(1000)


@pytest.mark.parametrize("compress", [False, True])
def test_a_large_tar_takes_constant_memory(tmp_path: Path, compress: bool) -> None:
    path = write_sparse_tar(tmp_path / "a.tar", [(f"{number:04d}.jpg", 1 << 20) for number in range(200)])
    if compress:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))

    def work() -> None:
        index = index_tar(str(path), compress)
        assert (index.samples, index.damage) == (200, "")
        for _, _, members in read_tar(str(path), compress, 0, 200):
            assert len(members[0].content or b"") == 1 << 20

    assert peak_bytes(work) < 8 << 20
