"""Prompts beyond the limit of the text encoder: counted, reported once, and without a second schema in old outputs."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from jobs._cli import warn_if_truncated
from pipelines.dataset.row_formats import PARQUET, ROW_FORMATS
from pipelines.readers.prompts import PromptFiles
from pipelines.runs.progress import Progress
from pipelines.runs.row_run import ADDED_COLUMNS
from pipelines.runs.task_run import TaskRun
from pipelines.samples import chunk_name, version_stem
from pipelines.stages.publish import PublishRows
from pipelines.stages.task import TOKENS_CUT
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.pair_generation import PairGeneration
from tests.pipelines.tasks.test_generation import Tiny, publish
from tests.support.inputs import all_rows, write_folder
from tests.support.tiny import tiny_model, write_tiny_tokenizer
from unicon.options import SamplingOptions

torch.set_num_threads(1)  # tiny models are slower on several threads
TASK = PairGeneration(
    conditions=(ConditionColumn(name="depth", kind="depth"),),
    sampling=SamplingOptions(num_inference_steps=1, guidance_scale=1.0),
)
ROOM = 12
"""Tokens of the tiny text encoder; letters are tokens, `depth_map, ` has ten, and start and end count."""


def test_tokens_are_counted_with_the_trigger(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"p.txt": b"\n".join([b"a", b"ab", b"abcdefghijklmno"])})
    rows = publish(TASK, PromptFiles(), tmp_path / "in", tmp_path / "out")
    trigger = len("depth_map,") + 2
    assert [row[TOKENS_CUT] for row in rows] == [trigger + count - ROOM for count in (1, 2, 15)]
    without = replace(TASK, conditions=(ConditionColumn(name="id", kind="id"),))
    rows = publish(without, PromptFiles(), tmp_path / "in", tmp_path / "other")
    assert [row[TOKENS_CUT] for row in rows] == [0, 0, 15 + 2 - ROOM]


def test_it_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(model, "_said_cut", False)
    with caplog.at_level(logging.WARNING):
        for negative in ("a" * 30, "b" * 30):
            model.generate_pairs(["a"], "id", negative_prompts=[negative], num_inference_steps=1)
    assert [record.message.split(";")[0] for record in caplog.records] == ["The text encoder takes 12 tokens"]


def test_the_run_and_the_command_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(3)
    progress.add({"ok": 3, "bad": 0, "cut": 2})
    assert progress.prompts_cut == 2
    write_tiny_tokenizer(tmp_path / "tokenizer")
    warn_if_truncated("--negative-prompt", "a" * 60, tmp_path)
    warn_if_truncated("--negative-prompt", "fog", tmp_path)
    assert capsys.readouterr().err.strip() == (
        "--negative-prompt: the text encoder takes 12 tokens; the last 50 are truncated"
    )


@pytest.mark.parametrize("form", ROW_FORMATS.values(), ids=lambda form: form.name)
def test_an_output_of_an_earlier_version_keeps_its_columns(form: Any, tmp_path: Path) -> None:
    rows = {"key": "a", "caption": "b", "width": 1, "height": 1, "shard": "s", "position": 0, "seed": 0}
    old = PublishRows(output="", task=TASK, provenance={"seed": 0}, omit=ADDED_COLUMNS).rows_schema()
    assert not ADDED_COLUMNS & set(old.names)
    row = {name: rows.get(name) for name in old.names}
    for name in ("image", "depth"):
        row[name] = {"bytes": b"\x89PNG\r\n\x1a\n", "path": "a.png"}
    name = version_stem(chunk_name("s", "s", "f" * 16, 0, 1, "c" * 16), 1, [])
    files = {
        f"a.{form.extension}": b"the user's",
        f"0{name}.{form.extension}": b"damaged",
        f"{name}.tmp": b"",
        "b": b"",
    }
    write_folder(tmp_path / "out" / "data", {**files, f"{name}.{form.extension}": form.encode([row], old)})
    run = TaskRun(
        job="generate_pairs", task=TASK, source=PromptFiles(), model=Tiny(), provenance={"seed": 0},  # type: ignore[arg-type]
        other_settings={}, batch_size=1, card=None, row_format=form,  # type: ignore[arg-type]
    )  # fmt: skip
    assert run._columns_without(str(tmp_path / "out")) == ADDED_COLUMNS
    assert run._columns_without(str(tmp_path / "new")) == frozenset()
    loads = run.as_job().load_options
    assert not any(name in loads(str(tmp_path / "out")) for name in ADDED_COLUMNS)
    assert all((name in loads(str(tmp_path / "new"))) == (form is not PARQUET) for name in ADDED_COLUMNS)


def test_rows_that_go_on_have_the_schema_of_the_rows_before(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"p.txt": b"a cat\n"})
    publish(TASK, PromptFiles(), tmp_path / "in", tmp_path / "out")
    (path,) = (tmp_path / "out" / "data").iterdir()
    assert {*ADDED_COLUMNS} <= set(pq.ParquetFile(path).schema_arrow.names)
    assert all_rows(tmp_path / "out", "data")[0][TOKENS_CUT] == len("depth_map,acat") + 2 - ROOM
