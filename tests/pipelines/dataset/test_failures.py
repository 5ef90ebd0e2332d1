"""Why samples failed, from the files in errors/, whatever the records of runs say."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.dataset import failures, layout, schema
from pipelines.dataset.failures import Reasons, read_reasons
from pipelines.samples import chunk_name, version_stem
from pipelines.storage import files


def publish(output: str, number: int, *failed: str) -> None:
    """Publish a finished chunk; `failed` has `stage: reason` of each failed sample."""
    name = chunk_name("a", "/in/a.tar", "0" * 16, 10 * number, 10 * number + 10, "1" * 16)
    split = [text.split(": ", 1) for text in failed]
    rows = [
        {"key": f"{number}-{at}", "shard": "/in/a.tar", "position": at, "stage": stage, "reason": reason}
        for at, (stage, reason) in enumerate(split)
    ]
    stem = version_stem(name, 10 - len(rows), range(len(rows)))
    if rows:
        files.publish(layout.errors_uri(output, stem), schema.parquet_bytes(rows, schema.ERRORS))
    files.publish(layout.data_uri(output, stem), b"data is not read")
    files.publish(layout.mark_uri(output, stem), b"{}")


def found(output: str) -> Reasons:
    return read_reasons(layout.list_output(output).finished)


def test_reasons_are_counted_by_kind(tmp_path: Path) -> None:
    output = str(tmp_path)
    publish(output, 0, "decode: image file is truncated (12 bytes not processed)", "read: no image member")
    publish(output, 1)
    publish(output, 2, "decode: image file is truncated (7 bytes not processed)")
    counts = Counter({"decode: image file is truncated": 2, "read: no image member": 1})
    assert found(output) == Reasons(counts=counts)


def test_files_with_the_most_failures_are_read_first_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FILES_READ", 2)
    output = str(tmp_path)
    for number, count in enumerate([1, 4, 2, 3]):
        publish(output, number, *["model: NaN"] * count)
    assert found(output).counts == {"model: NaN": 7}
    assert found(output).unread == 3


def test_missing_and_damaged_files_are_counted(tmp_path: Path) -> None:
    output = str(tmp_path)
    publish(output, 0, "model: NaN", "model: NaN")
    publish(output, 1, "read: no image member", "read: no image member")
    publish(output, 2, "model: NaN")
    (path,) = (tmp_path / "errors").glob("*-0000010-0000020-*")
    path.write_bytes(path.read_bytes()[:-9])
    listed = layout.list_output(output).finished
    next((tmp_path / "errors").glob("*-0000000-0000010-*")).unlink()
    reasons = read_reasons(listed)
    assert (reasons.counts, reasons.unread) == ({"model: NaN": 1}, 4)


def test_secrets_are_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    publish(str(tmp_path), 0, "read: hunter2hunter2 was refused")
    assert found(str(tmp_path)).counts == {"read: *** was refused": 1}
