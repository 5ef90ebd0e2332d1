"""Concurrent runs on one output: which runs are working, and what they skip."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.dataset import layout
from pipelines.runs.overlap import rotated, runs_at_work
from pipelines.runs.record import RunRecord
from pipelines.samples import Chunk
from pipelines.storage.store import FILES
from tests.support.in_process import Do, World, once
from tests.support.inputs import write_tar


def test_a_run_is_at_work_until_it_ends_or_falls_silent(tmp_path: Path) -> None:
    output, now = str(tmp_path), datetime.now(UTC)
    ended, working = RunRecord(output, {}), RunRecord(output, {})
    ended.end("ended", 0)
    for content in (b"", b"[]", b'{"state": "running"}'):
        storage.publish(layout.run_uri(output, f"30000101T000000.000Z-{len(content)}"), content)
    assert runs_at_work(FILES, output, now) == [working.name]
    assert runs_at_work(FILES, output, now + timedelta(hours=1)) == []


def test_runs_begin_at_different_places_of_the_same_list() -> None:
    items = list(range(100))
    firsts = {rotated(items, f"run {number}")[0] for number in range(20)}
    assert len(firsts) > 10
    assert sorted(rotated(items, "run 1")) == items
    assert rotated([], "run 1") == []


def test_what_one_run_has_published_the_other_passes_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    keys = [f"{number:05d}" for number in range(40)]
    write_tar(world.inputs / "a.tar", [(f"{key}.jpg", key.encode()) for key in keys])
    done: list[str] = []

    def during(chunks: Sequence[Chunk], do: Do) -> None:
        for chunk in chunks[:2]:
            do(chunk)

        def other(more: Sequence[Chunk], do_other: Do) -> None:
            assert {chunk.name for chunk in more} == {chunk.name for chunk in chunks[2:]}
            for chunk in more:
                do_other(chunk)
                done.append(chunk.name)

        assert world.run(during=other) == 0
        for chunk in chunks[2:]:
            do(chunk)

    assert world.run(during=during, max_error_rate=1.0) == 0
    assert len(done) == 2
    assert any("20 samples were published by another run" in text for text in world.said)
    assert any("seems to work on this output too" in text for text in world.said)
    assert world.rows() == once(keys)


@pytest.mark.parametrize("missing", ["data", "_chunks/done"])
def test_a_chunk_that_is_half_there_is_not_passed_over(missing: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    write_tar(world.inputs / "a.tar", [("0.jpg", b"0"), ("1.jpg", b"1")])
    assert world.run() == 0
    for path in (world.output / missing).iterdir():
        path.unlink()
    assert world.run() == 0
    assert world.rows() == once(["0", "1"])
    record = json.loads(sorted((world.output / "_chunks" / "runs").iterdir())[-1].read_text())
    assert record["done"]["ok"] == 2
