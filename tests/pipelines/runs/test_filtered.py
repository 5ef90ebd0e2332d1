"""Samples that a filter removes: they are in errors/ and in the names of files, but they have not failed."""

from pathlib import Path

import pytest

from pipelines.dataset import layout
from pipelines.runs.outcome import has_failed
from pipelines.samples import STEM, chunk_name, filtered_in, version_stem, waiting_in
from tests.support.in_process import World, keys, once, tar

NAME = chunk_name("a", "uri", "f" * 16, 0, 10, "c" * 16)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_names_count_what_waits_and_what_is_filtered() -> None:
    stem = version_stem(NAME, 6, [1, 2, 3, 4], waiting=[1], filtered=[2, 3])
    assert stem.endswith(".ok6.bad4.wait1.filtered2") and STEM.fullmatch(stem)
    assert (waiting_in(f"x/{stem}.parquet"), filtered_in(f"x/{stem}.parquet")) == (1, 2)
    plain = version_stem(NAME, 6, [1, 2, 3, 4])
    assert plain.endswith(".ok6.bad4") and filtered_in(plain) == 0
    assert len({stem, plain, version_stem(NAME, 6, [1, 2, 3, 4], filtered=[2, 4])}) == 3
    assert STEM.fullmatch(version_stem(NAME, 9, [1], filtered=[1]))


def test_filtered_samples_are_no_failures(world: World) -> None:
    tar(world, keys(12))
    assert world.run(filtered=range(9), fails={"00010"}, max_error_rate=0.4) == 0
    assert world.rows() == once(keys(12)) and world.failed() == {*keys(9), "00010"}
    versions = layout.list_output(str(world.output)).finished
    assert sorted((each.ok, each.bad, each.filtered) for each in versions) == [(1, 1, 0), (1, 9, 9)]
    assert any("9 of those in errors/ were removed by filters, 1 failed" in text for text in world.said)
    assert world.run(filtered=range(9), max_error_rate=0.3) == 3
    assert any("33.3% of the samples failed" in text for text in world.said)


def test_filtered_samples_are_not_tried_again(world: World) -> None:
    tar(world, keys(10))
    assert world.run(filtered=range(4), fails={"00007"}) == 0
    world.said.clear()
    assert world.run(retry_errors=True) == 0
    assert any("9 done before, 1 to do" in text for text in world.said)
    assert world.failed() == set(keys(4)) and world.rows() == once(keys(10))
    world.said.clear()
    assert world.run(retry_errors=True) == 0
    assert any("10 done before, 0 to do" in text for text in world.said)


def test_a_chunk_of_filtered_samples_alone_is_finished(world: World) -> None:
    tar(world, keys(10))
    assert world.run(filtered=range(10)) == 0
    assert world.failed() == set(keys(10)) and not (world.output / "data").exists()
    assert world.run(filtered=range(10)) == 0


@pytest.mark.parametrize(("ok", "failed", "expected"), [(0, 0, False), (0, 1, True), (1, 1, False), (1, 2, True)])
def test_the_error_rate_is_that_of_samples_that_were_not_filtered(ok: int, failed: int, expected: bool) -> None:
    assert has_failed(ok, failed, 0.5) is expected
