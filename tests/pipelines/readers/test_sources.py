"""Sources: checks of named columns before the run, and repeated samples."""

from pathlib import Path

import pytest

from pipelines.dataset.layout import Listing
from pipelines.errors import SettingError
from pipelines.planning.plan import Plan, make_plan
from pipelines.readers.shard_index import INDEX_STRIDE
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards, Repeated, check_media
from pipelines.samples import Columns, Sample
from tests.support.inputs import encoded_image, samples, write_folder, write_parquet, write_tar


def plan_of(source: Repeated | ImageShards, inputs: Path, chunk_size: int) -> Plan:
    output = str(inputs.parent / "out")
    measured = source.measure(source.find([str(inputs)], output), output, None)
    return make_plan(measured, Listing(finished=(), remains=()), "c" * 10, chunk_size)


def read_all(source: Repeated | ImageShards, inputs: Path, chunk_size: int = 7) -> list[Sample]:
    plan = plan_of(source, inputs, chunk_size)
    found = [sample for chunk in plan.chunks for sample in source.read(chunk)]
    assert [sample.position for sample in found] == [at for chunk in plan.chunks for at in chunk.positions]
    return found


def repeated(copies: int) -> Repeated:
    return Repeated(source=ImageShards(columns=Columns()), copies=copies, option="--images-per-row")


@pytest.mark.parametrize("copies", [2, 3, 40])
def test_every_copy_is_a_sample_of_its_own(copies: int, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(70))
    write_parquet(tmp_path / "in" / "b.parquet", {"image": [encoded_image(n) for n in range(5)], "key": list("vwxyz")})
    write_tar(tmp_path / "in" / "c.tar.gz", samples(40, first=100), compress=True)
    once = read_all(ImageShards(columns=Columns()), tmp_path / "in")
    found = read_all(repeated(copies), tmp_path / "in")
    assert [(sample.key, sample.image) for sample in found] == [
        (f"{sample.key}#{copy}", sample.image) for sample in once for copy in range(copies)
    ]


def test_copies_enter_a_tar_by_seeking(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(70))
    last = plan_of(repeated(3), tmp_path / "in", 10).chunks[-1]
    inner = repeated(3)._inner(last)
    assert (inner.start, inner.stop, inner.seek_position) == (66, 70, 2 * INDEX_STRIDE)


def test_repeated_keys_and_the_unreadable_rest(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [*samples(3), ("00001.jpg", encoded_image()), *samples(1, first=9)])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(whole.read_bytes()[:-11_000])
    found = read_all(repeated(2), tmp_path / "in", chunk_size=3)
    reasons = [sample.problem.reason.split(":")[0] if sample.problem else "" for sample in found]
    assert reasons[:6] == [""] * 6
    assert reasons[6:8] == ["duplicate key"] * 2
    assert [sample.key for sample in found if sample.key.startswith("a.tar#rest")] == ["a.tar#rest#0"]


def test_copies_of_loose_images_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.jpg": encoded_image()})
    with pytest.raises(SettingError, match="--images-per-row 2 needs tars or Parquet files"):
        plan_of(repeated(2), tmp_path / "in", 4)


def test_media_are_checked_before_the_run(tmp_path: Path) -> None:
    options = {"depth.png": "--condition depth=depth.png"}
    tar = write_tar(tmp_path / "a.tar", [("a.depth.png", b"x"), ("a.txt", b"x"), ("b.txt", b"x")])
    check_media(find_shards([str(tar)]), options)
    other = write_tar(tmp_path / "b.tar", samples(3))
    with pytest.raises(SettingError, match=r"--condition depth=depth.png: no .depth.png .* members: .jpg, .txt"):
        check_media(find_shards([str(other)]), options)
    parquet = write_parquet(tmp_path / "c.parquet", {"image": [b"x"], "n": [1]})
    with pytest.raises(SettingError, match=r"^--mask-column m is not in .* Its columns: image, n"):
        check_media(find_shards([str(parquet)]), {"m": "--mask-column m"})
    with pytest.raises(SettingError, match=r"^--mask-column n of .* has type int64"):
        check_media(find_shards([str(parquet)]), {"n": "--mask-column n"})
    folder = write_folder(tmp_path / "folder", {"a.jpg": encoded_image()})
    with pytest.raises(SettingError, match="folder of loose images"):
        check_media(find_shards([str(folder)]), options)


def test_a_sample_without_one_of_its_media_says_so(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.mask.png", b"2"), ("b.jpg", b"3"), ("c.jpg", b"4"), ("c.mask.png", b"")]
    write_tar(tmp_path / "in" / "a.tar", members)
    columns = {"image": [b"1", b"2"], "mask.png": [b"3", None]}
    write_parquet(tmp_path / "in" / "b.parquet", columns)
    source = ImageShards(
        columns=Columns(media=("mask.png",), image=None), media_options={"mask.png": "--mask-column mask.png"}
    )
    tar_source = find_shards([str(tmp_path / "in" / "a.tar")])
    assert len(source.measure(tar_source, str(tmp_path / "out"), None)) == 1
    found = read_all(source, tmp_path / "in" / "a.tar")
    assert found[0].media["mask.png"].content == b"2"
    assert [sample.problem.reason if sample.problem else "" for sample in found] == [
        "", "no member .mask.png: the sample has .jpg", "the .mask.png file is empty"
    ]  # fmt: skip


def test_a_damaged_tar_does_not_tell_which_members_there_are(tmp_path: Path) -> None:
    masked = [(f"{number}.{extension}", b"x" * 300) for number in range(9) for extension in ("jpg", "mask.png")]
    whole = write_tar(tmp_path / "in" / "a.tar", masked)
    whole.write_bytes(whole.read_bytes()[: 1024 + 100])
    options = {"mask.png": "--mask-column mask.png"}
    check_media(find_shards([str(tmp_path / "in")]), options)
    write_tar(tmp_path / "in" / "b.tar", samples(3))
    with pytest.raises(SettingError, match=r"no .mask.png in the first samples of .*/b.tar"):
        check_media(find_shards([str(tmp_path / "in")]), options)
