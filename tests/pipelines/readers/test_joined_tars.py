"""What follows the end marker of a tar: other tars, padding, malformed bytes; outputs of versions that ignored it."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import ShardChangedError
from pipelines.planning.plan import make_plan
from pipelines.readers import gzip_index
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.shard_index import INDEX_STRIDE
from pipelines.readers.shards import find_shards
from pipelines.readers.tar import index_tar, is_compressed, read_tar
from pipelines.samples import Chunk, Columns, Sample
from tests.support.in_process import World, once, tar
from tests.support.inputs import samples, write_sparse_tar, write_tar
from tests.support.paths import CASES


def tar_of(path: Path, first: int, count: int) -> bytes:
    return write_tar(path / f"{first}.tar", samples(count, first)).read_bytes()


def without_padding(raw: bytes) -> bytes:
    """Return a tar up to the first block of its end marker."""
    return raw.rstrip(b"\0") + bytes(-len(raw.rstrip(b"\0")) % 512) + bytes(512)


def keys_of(path: Path, compressed: bool = False) -> list[str]:
    index = index_tar(str(path), compressed)
    return [key for _, key, _ in read_tar(str(path), compressed, 0, index.samples)]


JOINS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "as they are": lambda a, b: a + b,
    "one zero block": lambda a, b: without_padding(a) + b,
    "many zero blocks": lambda a, b: a + bytes(512 * 300) + b,
    "padding of no whole block": lambda a, b: a + bytes(1300) + b,
    "an empty one first": lambda a, b: bytes(1024) + a + b,
    "padded to no whole block": lambda a, b: a + b + bytes(100),
    "three": lambda a, b: a + bytes(10240) + b + bytes(10240),
}


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("packing", ["plain", "gzip", "gzip each"])
def test_joined_tars_are_read_to_the_end(tmp_path: Path, join: str, packing: str) -> None:
    first, second = tar_of(tmp_path, 0, 40), tar_of(tmp_path, 40, 50)
    raw = JOINS[join](first, second)
    cut = raw.index(second)
    path = tmp_path / "joined.tar"
    path.write_bytes(
        {
            "plain": lambda: raw,
            "gzip": lambda: gzip.compress(raw, 1),
            "gzip each": lambda: gzip.compress(raw[:cut], 1) + gzip.compress(raw[cut:], 1),
        }[packing]()
    )
    compressed = is_compressed(str(path))
    index = index_tar(str(path), compressed)
    assert (index.samples, index.damage, index.duplicates) == (90, "", ())
    assert keys_of(path, compressed) == [f"{number:05d}" for number in range(90)]
    for start, stop in ((38, 42), (40, 41), (64, 66), (89, 90)):
        stride = start // INDEX_STRIDE
        seek = (stride * INDEX_STRIDE, index.seek_bytes[stride]) if not compressed else (0, 0)
        found = list(read_tar(str(path), compressed, start, stop, *seek))
        assert [(at, key, members[1].content) for at, key, members in found] == [
            (number, f"{number:05d}", f"caption {number}".encode()) for number in range(start, stop)
        ]


def test_joined_compressed_tars_are_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("indexed_gzip")
    monkeypatch.setattr(gzip_index, "SPACING_BYTES", 100_000)
    rng = np.random.default_rng(0)
    contents = [rng.bytes(20_000) for _ in range(100)]
    halves = [[(f"{n:03d}.jpg", contents[n]) for n in range(at, at + 50)] for at in (0, 50)]
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"".join(write_tar(tmp_path / "half.tar", half, compress=True).read_bytes() for half in halves))
    found, chunks = planned(path, tmp_path)
    assert [(sample.key, sample.image) for sample in found] == [(f"{n:03d}", contents[n]) for n in range(100)]
    assert all(chunk.gzip_index_uri for chunk in chunks) and chunks[-1].seek_bytes > 20_000 * 60


def planned(path: Path, output: Path, size: int = 10) -> tuple[list[Sample], list[Chunk]]:
    measured = measure(find_shards([str(path)]), Columns(), str(output / "out"))
    plan = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, size)
    found = [sample for chunk in plan.chunks for sample in read_chunk(chunk, Columns())]
    assert plan.samples == len(found)
    return found, list(plan.chunks)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "rest", [b"garbage" * 500, b"x", b"\n", bytes(5000) + b"late", b"PK\x03\x04" * 200, bytes(700) + b"A" * 512]
)
def test_what_is_no_tar_after_the_end_marker_is_one_error_row(tmp_path: Path, compress: bool, rest: bytes) -> None:
    path = tmp_path / "a.tar"
    raw = tar_of(tmp_path, 0, 3) + rest
    path.write_bytes(gzip.compress(raw) if compress else raw)
    found, _ = planned(path, tmp_path)
    assert [sample.key for sample in found] == ["00000", "00001", "00002", "a.tar#rest"]
    assert [sample.problem is None for sample in found] == [True, True, True, False]
    problem = found[3].problem
    assert problem and "what follows its end marker, from byte" in problem.reason


def test_malformed_bytes_after_gzip_are_reported(tmp_path: Path) -> None:
    """A plain tar after a compressed one is damage. Zeros are padding, as on tapes and in `gzip` itself."""
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(tar_of(tmp_path, 0, 3)) + tar_of(tmp_path, 3, 3))
    assert [sample.problem is None for sample in planned(path, tmp_path / "1")[0]] == [True, True, True, False]
    path.write_bytes(gzip.compress(tar_of(tmp_path, 0, 3)) + bytes(4096))
    assert [sample.problem is None for sample in planned(path, tmp_path / "2")[0]] == [True] * 3


def test_a_joined_tar_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(tmp_path, 0, 3) + tar_of(tmp_path, 3, 3)[: 512 * 8])
    index = index_tar(str(path), False)
    assert index.samples == 3 + 2 and index.damage


def test_members_of_two_tars_are_no_sample_together(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    parts = [[("a.jpg", b"1"), ("b.jpg", b"2")], [("b.txt", b"two"), ("c.jpg", b"3")]]
    path.write_bytes(b"".join(write_tar(tmp_path / "part.tar", part).read_bytes() for part in parts))
    assert keys_of(path) == ["a", "b", "b", "c"]
    assert index_tar(str(path), False).duplicates == (2,)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cat.tar", ["a0", "a1", "b0", "b1"]),
        ("twostream.tar.gz", ["a0", "a1"]),
        ("sparse_gnu.tar", ["holes", "plain"]),
        ("sparse_posix.tar", ["holes", "plain"]),
    ],
)
def test_tars_of_other_tools(tmp_path: Path, name: str, keys: list[str]) -> None:
    found, _ = planned(CASES / name, tmp_path)
    assert [sample.key for sample in found] == keys
    assert all(sample.problem is None and sample.image for sample in found)


def test_much_padding_is_no_damage(tmp_path: Path) -> None:
    path = write_sparse_tar(tmp_path / "a.tar", [("a.jpg", 100)])
    with path.open("r+b") as file:
        file.truncate(40 << 20)
    assert keys_of(path) == ["a"]


def test_a_plain_tar_of_an_earlier_version_keeps_its_chunks(tmp_path: Path) -> None:
    world = World(tmp_path)
    tar(world, ["a", "b"])
    assert world.run() == 0
    before = world.stems()
    (index,) = (world.output / "_chunks" / "index").glob("*.json")
    new = index.read_text()
    index.write_text(json.dumps({name: value for name, value in json.loads(new).items() if name != "version"}))
    assert world.run() == 0 and world.stems() == before
    assert index.read_text() == new


def test_a_kept_index_that_ended_at_the_first_end_mark_is_made_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = tar(world, ["a", "b"])
    path.write_bytes(path.read_bytes() + write_tar(tmp_path / "other.tar", [("c.jpg", b"c v1")]).read_bytes())
    world.run(limit=2)
    (index,) = (world.output / "_chunks" / "index").glob("*.json")
    found = json.loads(index.read_text())
    assert found["samples"] == 3
    index.write_text(json.dumps({**{name: found[name] for name in found if name != "version"}, "samples": 2}))
    before = world.stems()
    assert world.until_done()[-1] == 0
    assert world.rows() == once(["a", "b", "c"])
    assert before <= world.stems()


def test_a_tar_that_shrinks_is_still_noticed(tmp_path: Path) -> None:
    with pytest.raises(ShardChangedError):
        list(read_tar(str(CASES / "cat.tar"), False, 0, 5))


def test_odd_names_are_keys_as_they_are(tmp_path: Path) -> None:
    found, _ = planned(CASES / "odd_names.tar", tmp_path)
    good = [sample for sample in found if sample.problem is None]
    assert [sample.key for sample in found if sample.problem is not None] == ["zero", "hard", "soft"]
    assert {sample.key: sample.caption for sample in good if sample.caption} == {
        "a": "a red boat",
        "deep/" * 30 + "n" * 120: "long name",
    }
    odd = {"/abs/b", "🐱 my cat (1)", "dir\\photo", "new\nline", "a::b", "100%25", "#1", "q?x=1", "bad\\xff\\xfename"}
    assert odd < {sample.key for sample in good} and len(good) == 17
