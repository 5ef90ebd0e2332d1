"""Exceptions that a value causes, in any stage, fail only its row; the other rows of the chunk are published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.dataset.row_formats import ROW_FORMATS
from pipelines.errors import FOREIGN_CHARS, MAX_REASON_CHARS, SampleError, clipped
from pipelines.stages.row_faults import describe
from pipelines.tasks.estimation import Estimation
from tests.support.estimating import TASK, estimate
from tests.support.inputs import encoded_image, write_parquet

BAD = 2
"""Position of the bad row."""


@dataclass(frozen=True, kw_only=True)
class Odd(Estimation):
    """An estimation in which one row has an odd value, or raises, at one stage."""

    stage: str
    value: Any

    def read(self, sample: Any) -> Mapping[str, Any]:
        return {**super().read(sample), **self._odd("read", sample.key)}

    def compute(self, model: Any, rows: Sequence[Any], seeds: Sequence[int]) -> Any:
        results: Any = super().compute(model, rows, seeds)
        return [{**result, **self._odd("compute", row["key"])} for result, row in zip(results, rows, strict=True)]

    def write(self, row: Any) -> Mapping[str, Any]:
        return {**super().write(row), **self._odd("write", row["key"])}

    def _odd(self, stage: str, key: str) -> Mapping[str, Any]:
        if stage != self.stage or key != f"k{BAD}":
            return {}
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize("row_format", ROW_FORMATS)
@pytest.mark.parametrize(
    ("stage", "value"),
    [
        ("read", {"caption": "\ud800"}),
        ("read", {"width": 2**40}),
        ("read", {"pixels": "no image"}),
        ("read", ZeroDivisionError("of nothing")),
        ("compute", {"depth_estimated": {"mode": "\ud800", "width": 1, "height": 1, "pixels": b""}}),
        ("compute", {"depth_estimated": 3}),
        ("write", {"caption": "\ud800"}),
        ("write", {"caption": b"\xff"}),
        ("write", {"width": {1, 2}}),
        ("write", RecursionError("too deep\nby far" + "x" * 9000)),
    ],
)
def test_an_odd_value_fails_only_its_row(stage: str, value: Any, row_format: str, tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(5)]
    write_parquet(tmp_path / "a.parquet", {"image": [encoded_image(n, size=(12, 10)) for n in range(5)], "key": keys})
    task = Odd(conditions=TASK.conditions, max_pixels=TASK.max_pixels, stage=stage, value=value)
    ran = estimate([tmp_path / "a.parquet"], tmp_path / "out", task=task, row_format=ROW_FORMATS[row_format])
    assert (ran.code, list(ran.reasons)) == (0, [f"k{BAD}"])
    assert [row["key"] for row in ran.rows] == [key for key in keys if key != f"k{BAD}"]
    (reason,) = ran.reasons.values()
    assert reason.isprintable() and len(reason) <= MAX_REASON_CHARS
    again = estimate([tmp_path / "a.parquet"], tmp_path / "out", row_format=ROW_FORMATS[row_format], retry_errors=True)
    assert (again.code, [row["key"] for row in again.rows], again.errors) == (0, keys, [])


def test_foreign_text_is_short_and_on_one_line() -> None:
    text = "\x1b[31mred\r\n\0\u202ebidi\ud800 \udcff" + "x" * 10_000
    for shown in (clipped(text), describe(ValueError(text))[len("ValueError: ") :], SampleError("read", text).reason):
        assert shown.isprintable() and shown.startswith("\\x1b[31mred")
    assert len(clipped(text)) == FOREIGN_CHARS
    assert len(SampleError("read", text).reason) == MAX_REASON_CHARS
