"""The estimate command with a real Ray and a fake model: any conditions, ensembles, the chunk size of an output."""

import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

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


def test_depth_and_edges_in_one_pass(ray_cluster: None, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(6))
    arguments = ["--input", str(tmp_path / "in"), "--chunk-size", "4"]
    for names in (["depth", "edge"], ["depth"]):
        output = tmp_path / "-".join(names)
        options = estimate.parse([*arguments, "--output", str(output), "--condition", *names])
        assert run_command(options, estimate, FakeDepth(), *names) == 0
    both, depths = all_rows(tmp_path / "depth-edge", "data"), all_rows(tmp_path / "depth", "data")
    assert [*both[0]][:5] == ["key", "image", "depth", "edge", "caption"]
    assert {row["key"]: row["depth"] for row in both} == {row["key"]: row["depth"] for row in depths}
    assert all(Image.open(io.BytesIO(row["edge"]["bytes"])).mode == "L" for row in both)
    card = (tmp_path / "depth-edge" / "README.md").read_text()
    assert "# Depth and edge maps" in card and "| `edge` | same size as the image: 8-bit gray PNG" in card
    wide, narrow = (Image.open(tmp_path / name / "preview.png") for name in ("depth-edge", "depth"))
    assert wide.width > narrow.width


def test_a_condition_that_is_named_twice_is_estimated_once() -> None:
    options = estimate.parse(["--input", "in", "--output", "out", "--condition", "edge", "depth", "edge"])
    assert options.condition == ["edge", "depth"]
    assert estimate.parse(["--input", "in", "--output", "out"]).condition == ["depth"]
