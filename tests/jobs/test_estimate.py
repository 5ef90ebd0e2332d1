"""The estimate command with a real Ray and a fake model: any condition, ensembles, the chunk size of an output."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from jobs import estimate
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, samples, write_tar
from tests.support.run_fake_job import run_command


def test_edges_with_confidence(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(10))
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--condition", "edge"]
    arguments += ["--ensemble", "4", "--sampler", "euler", "--resolution", "64", "--chunk-size", "4"]
    assert run_command(estimate.parse(arguments), estimate, FakeDepth(), "edge") == 0
    files = str(tmp_path / "out" / "data" / "*.parquet")
    rows: Any = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names[:5] == ["key", "image", "edge", "confidence", "caption"]
    assert {(row["edge"].mode, row["confidence"], row["sampler"], row["resolution_px"]) for row in rows} == {
        ("L", 0.25, "euler", 64)
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Edge maps" in card
    assert "| `edge` | same size as the image: 8-bit gray PNG" in card
    assert (tmp_path / "out" / "preview.png").exists()

    write_tar(tmp_path / "in" / "b.tar", samples(10, first=50))
    capsys.readouterr()
    assert run_command(estimate.parse([*arguments, "--chunk-size", "9"]), estimate, FakeDepth(), "edge") == 0
    assert "began with chunks of 4 samples, so --chunk-size 9 is not used" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "data").iterdir())) == 6
    assert len(all_rows(tmp_path / "out", "data")) == 20
