"""Status from marks, records and plans alone: no run, no data."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.dataset import layout, schema
from pipelines.errors import SettingError
from pipelines.planning.plan import Plan, make_plan
from pipelines.readers.measure import measure
from pipelines.readers.shard_index import MeasuredShard
from pipelines.readers.shards import find_shards
from pipelines.runs.overlap import state_of
from pipelines.runs.record import RunRecord
from pipelines.runs.status import as_json, read_status
from pipelines.runs.status_text import status_text
from pipelines.samples import Columns
from tests.support.inputs import encoded_image, samples, write_folder, write_tar
from tests.support.versions import finish as finish_chunk

CONFIGURATION = "c" * 16
OPTIONS = {"limit": None, "since": None, "retry_errors": False, "max_error_rate": 0.5}


def planned(
    inputs: Path, output: str, limit: int | None = None, chunk_size: int = 4
) -> tuple[list[MeasuredShard], Plan]:
    measured = measure(find_shards([str(inputs)]), Columns(), output, limit)
    return measured, make_plan(measured, layout.list_output(output), CONFIGURATION, chunk_size)


def run_of(output: str, measured: list[MeasuredShard], plan: Plan, **options: Any) -> RunRecord:
    """Record a finished run."""
    about = {"job": "estimate_depth", "configuration": CONFIGURATION, "options": {**OPTIONS, **options}}
    record = RunRecord(output, {**about, "done": {"errors": {}, "ok": 1, "bad": 0, "samples_per_s": 1.5}})
    record.planned(measured, plan, is_whole=not (options.get("limit") or options.get("since")))
    record.end("ended", 0)
    return record


def finish(output: str, plan: Plan, bad: int = 0) -> None:
    for chunk in plan.chunks:
        finish_chunk(output, chunk, failed=range(chunk.start, chunk.start + bad))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Two tars of ten samples."""
    for name in "ab":
        write_tar(tmp_path / "in" / f"{name}.tar", samples(10))
    return tmp_path / "in"


def test_done_failed_and_pending_by_shard(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs, output)
    run_of(output, measured, plan)
    status = read_status(output)
    assert (status.planned, status.ok, status.pending, status.exit_code) == (20, 0, 20, 1)
    finish(output, Plan(chunks=plan.chunks[:4], finished=(), superseded=(), samples=14), bad=1)
    status = read_status(output)
    assert (status.ok, status.bad, status.pending, status.exit_code) == (10, 4, 6, 1)
    assert [(shard.uri[-5:], shard.ok, shard.bad, shard.pending) for shard in status.shards] == [
        ("a.tar", 7, 3, 0), ("b.tar", 3, 1, 6)
    ]  # fmt: skip
    finish(output, plan, bad=1)
    assert (read_status(output).pending, read_status(output).exit_code) == (0, 0)


def test_failed_samples_have_their_reasons_when_no_record_does(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs, output)
    run_of(output, measured, plan)
    finish(output, plan, bad=1)
    chunk = plan.chunks[0]
    row = {"key": "x", "shard": chunk.shard_uri, "position": 0, "stage": "decode", "reason": "broken (x)"}
    (version,) = (version for version in layout.list_output(output).finished if version.name.text == chunk.name)
    storage.publish(version.errors_uri, schema.parquet_bytes([row], schema.ERRORS))
    status = read_status(output)
    assert (status.bad, status.reasons.counts, status.reasons.unread) == (6, {"decode: broken": 1}, 5)
    text = status_text(status, datetime.now(UTC))
    assert "1  decode: broken" in text and "and 5 more, in files of errors/ that were not read" in text
    told = as_json(status)
    assert (told["reasons"], told["bad_without_reason"]) == ({"decode: broken": 1}, 5)


def test_more_failures_than_the_last_run_allows(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs, output)
    finish(output, plan, bad=2)
    run_of(output, measured, plan, max_error_rate=0.1)
    assert read_status(output).exit_code == 3


def test_a_changed_shard_is_pending_again(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs, output)
    run_of(output, measured, plan)
    finish(output, plan)
    write_tar(inputs / "b.tar", samples(12))
    run_of(output, *planned(inputs, output))
    assert [(shard.ok, shard.pending) for shard in read_status(output).shards] == [(10, 0), (0, 12)]


def test_plans_of_part_of_the_input(inputs: Path, tmp_path: Path) -> None:
    """--limit does not count if there is a plan of the whole input; --since adds to it."""
    output = str(tmp_path / "out")
    run_of(output, *planned(inputs, output, limit=3), limit=3)
    assert read_status(output).planned == 3
    run_of(output, *planned(inputs, output))
    run_of(output, *planned(inputs, output, limit=3), limit=3)
    assert read_status(output).planned == 20
    new = write_tar(tmp_path / "more" / "c.tar", samples(5))
    run_of(output, *planned(new, output), since="2026-11-24T00:00:00+00:00")
    assert read_status(output).planned == 25
    run_of(output, *planned(inputs / "a.tar", output))
    finish(output, planned(new, output)[1])
    status = read_status(output)
    assert (status.planned, status.others) == (10, 5), "a plan of the whole input replaces the others"


def test_folders_are_counted_by_their_marks(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{number}.jpg": encoded_image(number) for number in range(6)})
    output = str(tmp_path / "out")
    measured, plan = planned(folder, output)
    run_of(output, measured, plan)
    finish(output, plan)
    assert (read_status(output).ok, read_status(output).pending) == (6, 0)


def test_the_input_against_the_plan(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs, output)
    run_of(output, measured, plan)
    finish(output, plan)
    assert read_status(output, [str(inputs)]).exit_code == 0
    write_tar(inputs / "a.tar", samples(11))
    write_tar(inputs / "c.tar", samples(1))
    (inputs / "b.tar").unlink()
    status = read_status(output, [str(inputs)])
    assert status.changes is not None
    changes = status.changes
    assert [[uri[-5:] for uri in uris] for uris in (changes.new, changes.changed, changes.gone)] == [
        ["c.tar"], ["a.tar"], ["b.tar"]
    ]  # fmt: skip
    assert status.exit_code == 1
    assert "1 new: " in status_text(status, datetime.now(UTC))
    with pytest.raises(SettingError, match="there is nothing at"):
        read_status(output, [str(tmp_path / "absent")])


def test_an_output_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="has no record of a run"):
        read_status(str(tmp_path))


def test_before_the_first_plan_nothing_is_done(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    RunRecord(output, {"job": "estimate_depth", "configuration": CONFIGURATION, "options": OPTIONS})
    status = read_status(output)
    assert (status.planned, status.exit_code) == (0, 1)
    assert "no run has made a plan yet" in status_text(status, datetime.now(UTC))


def test_a_killed_run_has_never_ended(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs, output)
    about = {"job": "estimate_depth", "configuration": CONFIGURATION, "options": OPTIONS}
    RunRecord(output, about).planned(measured, plan, is_whole=True)
    status = read_status(output)
    now = datetime.now(UTC)
    assert state_of(status.runs[0], now) == "running"
    later = now + timedelta(hours=9)
    assert state_of(status.runs[0], later) == "never ended"
    assert "never ended, last heard of 20" in status_text(status, later)
    assert as_json(status)["runs"][0]["state"] == "running"


def test_the_last_ten_runs_are_shown_newest_first(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs, output)
    names = [run_of(output, measured, plan).name for _ in range(23)]
    assert [run["run"] for run in read_status(output).runs] == sorted(names)[:-11:-1]


def test_a_killed_retry_and_doubled_chunks_are_counted_once(inputs: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    measured, plan = planned(inputs / "a.tar", output)
    run_of(output, measured, plan)
    finish(output, plan)
    finish(output, plan, bad=1)  # two versions of each chunk
    finish(output, planned(inputs / "a.tar", str(tmp_path / "other"), chunk_size=10)[1])
    status = read_status(output)
    assert (status.ok, status.bad) == (10, 0)
