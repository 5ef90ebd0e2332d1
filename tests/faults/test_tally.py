"""The count that judges the faults sees what it must see."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import layout
from tests.faults import report
from tests.faults.tally import Tally, tally
from tests.faults.work import Outcome

NAME = layout.chunk_name("a", "/in/a.tar", "0" * 10, 0, 3, "1" * 10)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Three rows and an error in whole files, and their mark."""
    for folder, keys in (("data", ["a", "b", "c"]), ("errors", ["d"])):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"key": keys}), tmp_path / folder / f"{NAME}.parquet")
    mark = Path(layout.mark_uri(str(tmp_path), NAME, 3, 1))
    mark.parent.mkdir(parents=True)
    mark.write_text("{}")
    return tmp_path


def test_a_whole_output_is_clean(output: Path) -> None:
    assert tally(str(output), "abcd") == Tally()


def test_lost_and_foreign_keys_are_counted(output: Path) -> None:
    assert tally(str(output), "abcxy") == Tally(lost=2, foreign=1)


def test_doubled_rows_are_counted_across_folders_and_files(output: Path) -> None:
    other = layout.chunk_name("a", "/in/a.tar", "0" * 10, 3, 5, "1" * 10)
    pq.write_table(pa.table({"key": ["d", "a"]}), output / "data" / f"{other}.parquet")
    Path(layout.mark_uri(str(output), other, 2, 0)).write_text("{}")
    assert tally(str(output), "abcd") == Tally(duplicated=2)


def test_torn_files_are_counted(output: Path) -> None:
    path = output / "data" / f"{NAME}.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    (output / "data" / ".part.tmp").write_bytes(b"PAR1")
    assert tally(str(output), "abcd") == Tally(lost=3, torn=1, temporary=1)


def test_files_that_differ_from_their_mark_or_have_none_are_torn(output: Path) -> None:
    pq.write_table(pa.table({"key": ["a", "b"]}), output / "data" / f"{NAME}.parquet")
    assert tally(str(output), "abd") == Tally(torn=1)
    Path(layout.mark_uri(str(output), NAME, 3, 1)).unlink()
    assert tally(str(output), "abd") == Tally(torn=2)


def test_a_result_adds_up_and_is_unclean_for_each_reason() -> None:
    result = report.Result(fault="x", seed=1)
    result = result.with_outcome(Outcome(tally=Tally(temporary=1), exit_codes=(0,)))
    result = result.with_outcome(Outcome(tally=Tally(), exit_codes=(-9, 1, 0)))
    assert (result.rounds, result.survived, result.most_runs, result.is_clean) == (2, 1, 3, True)
    for reason in ("lost", "duplicated", "foreign", "torn", "unfinished"):
        assert not replace(result, **{reason: 1}).is_clean
    assert not result.with_outcome(Outcome(tally=Tally(), exit_codes=(1,))).is_clean


def test_the_document_shows_what_was_recorded_and_nothing_else() -> None:
    text = report.DOCUMENT.read_text()
    assert report.with_table(text, report.recorded()) == text


def test_recorded_rounds_of_a_seed_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(f"{report.BEGIN}{report.END}")
    monkeypatch.setattr(report, "RECORDS", tmp_path / "faults")
    monkeypatch.setattr(report, "DOCUMENT", document)
    kept = report.Result(fault="driver-kill", seed=3, rounds=2, survived=1)
    report.record(kept)
    assert report.begun("driver-kill", 3) == kept
    assert report.begun("driver-kill", 4).rounds == report.begun("disk-full", 3).rounds == 0
