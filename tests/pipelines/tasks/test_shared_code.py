"""Compiled code in a store."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import fsspec
import pytest

from pipelines.tasks.model import UniConModel
from pipelines.tasks.shared_code import SharedCode
from tests.support.tiny import write_tiny_model
from unicon.compilation.cache import is_own

FOLDER = "memory://outputs/labels/compiled"


def test_one_machine_publishes_and_another_fetches(tmp_path: Path) -> None:
    here, there = tmp_path / "here" / "a.compiled", tmp_path / "there" / "a.compiled"
    here.parent.mkdir()
    here.write_bytes(b"code")
    shared = SharedCode(FOLDER)
    shared.fetch(there)
    assert not there.exists()
    shared.publish(here)
    shared.fetch(there)
    assert there.read_bytes() == b"code"
    assert is_own(there)
    assert [path.name for path in there.parent.iterdir()] == ["a.compiled"]
    fsspec.filesystem("memory").rm("/outputs", recursive=True)


def test_a_store_that_fails_costs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    shared = SharedCode(str(tmp_path / "file" / "compiled"))
    path = tmp_path / "a.compiled"
    path.write_bytes(b"code")
    with caplog.at_level(logging.WARNING, "pipelines"):
        shared.publish(path)
        shared.fetch(path)
    assert "is not shared in" in caplog.records[0].getMessage()
    assert path.read_bytes() == b"code"


def test_the_description_of_a_model_says_how_it_is_compiled(tmp_path: Path) -> None:
    model = UniConModel(model=str(write_tiny_model(tmp_path / "tiny")), conditions=("depth",), device="cpu")
    settings = model.build().compilation.settings
    assert (settings.mode, settings.rows_expected, settings.shared) == ("never", None, None)
    described = dataclasses.replace(model, compile="auto", compiled_code=FOLDER)
    built = described.with_work(640).build().compilation
    assert (built.settings.mode, built.settings.rows_expected) == ("auto", 640)
    assert built.settings.shared == SharedCode(FOLDER)
    assert not built.is_on
