"""The count that evaluates the faults detects every kind of error."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset import layout
from pipelines.samples import chunk_name, version_stem
from tests.faults import report
from tests.faults.tally import Tally, error_rows, tally
from tests.faults.work import Outcome

NAME = chunk_name("a", "/in/a.tar", "0" * 16, 0, 4, "1" * 16)
STEM = version_stem(NAME, 3, [3])


def publish(output: Path, stem: str, ok: list[str], bad: list[str], **columns: list[object]) -> None:
    """Publish a finished version with these keys."""
    for uri, keys, more in (
        (layout.errors_uri(str(output), stem), bad, {}),
        (layout.data_uri(str(output), stem), ok, columns),
    ):
        if keys:
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"key": keys, **more}), uri)
    mark = Path(layout.mark_uri(str(output), stem))
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text("{}")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output with three rows and one error in complete files, and their mark."""
    publish(tmp_path, STEM, ["a", "b", "c"], ["d"])
    return tmp_path


def test_a_whole_output_is_clean(output: Path) -> None:
    assert tally(str(output), "abcd") == Tally()


def test_lost_and_foreign_keys_are_counted(output: Path) -> None:
    assert tally(str(output), "abcxy") == Tally(lost=2, foreign=1)


def test_doubled_rows_are_counted_across_folders_and_files(output: Path) -> None:
    other = chunk_name("a", "/in/a.tar", "0" * 16, 4, 6, "1" * 16)
    publish(output, version_stem(other, 2, []), ["d", "a"], [])
    assert tally(str(output), "abcd") == Tally(duplicated=2)


def test_a_second_version_of_a_chunk_doubles_its_rows(output: Path) -> None:
    publish(output, version_stem(NAME, 4, []), ["a", "b", "c", "d"], [])
    assert tally(str(output), "abcd") == Tally(duplicated=4)


def test_rows_of_another_content_are_foreign_and_those_of_the_input_lost(tmp_path: Path) -> None:
    images: list[object] = [{"bytes": content, "path": ""} for content in (b"1", b"old", b"3")]
    publish(tmp_path, STEM, ["a", "b", "c"], ["d"], image=images)
    contents = {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}
    assert tally(str(tmp_path), contents, contents) == Tally(lost=1, foreign=1)
    assert tally(str(tmp_path), contents, {**contents, "b": b"old"}) == Tally()


def test_a_key_that_may_be_gone_is_there_once_at_the_most(output: Path) -> None:
    assert tally(str(output), "abcdx", may_be_gone="x") == Tally()
    assert tally(str(output), "abcd", may_be_gone="d") == Tally()
    other = chunk_name("a", "/in/a.tar", "0" * 16, 4, 5, "1" * 16)
    publish(output, version_stem(other, 1, []), ["d"], [])
    assert tally(str(output), "abcd", may_be_gone="d") == Tally(duplicated=1)


def test_torn_files_are_counted(output: Path) -> None:
    path = Path(layout.data_uri(str(output), STEM))
    path.write_bytes(path.read_bytes()[:-30])
    (output / "data" / ".part.tmp").write_bytes(b"PAR1")
    assert tally(str(output), "abcd") == Tally(lost=3, torn=1, temporary=1)


def test_files_that_differ_from_their_version_or_have_none_are_torn(output: Path) -> None:
    pq.write_table(pa.table({"key": ["a", "b"]}), layout.data_uri(str(output), STEM))
    assert tally(str(output), "abd") == Tally(torn=1)
    Path(layout.mark_uri(str(output), STEM)).unlink()
    assert tally(str(output), "abd") == Tally(torn=2)


def test_error_rows_are_read(output: Path) -> None:
    assert error_rows(str(output)) == [{"key": "d"}]


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


def test_recorded_rounds_of_a_seed_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(f"{report.BEGIN}{report.END}")
    monkeypatch.setattr(report, "RECORDS", tmp_path / "faults")
    monkeypatch.setattr(report, "DOCUMENT", document)
    kept = report.Result(fault="driver-kill", seed=3, rounds=2, survived=1)
    report.record(kept)
    assert report.begun("driver-kill", 3) == kept
    assert report.begun("driver-kill", 4).rounds == report.begun("disk-full", 3).rounds == 0
