"""The benchmark of the data plane counts right; at real sizes it runs by hand."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import planning
from benchmarks.efficiency import Times

ROOT = Path(__file__).resolve().parents[2]


def test_ratios_of_a_flow_to_the_bare_loop() -> None:
    times = Times(receipts=[(7.0, 4), (9.0, 4), (11.0, 4), (13.0, 2)], wall_s=14.0)
    result = times.beside(bare_s=7.0)
    assert (result["samples"], result["first_receipt_s"], result["steady_s"]) == (14, 7.0, 4.0)
    assert result["steady_bare_s"] == pytest.approx(3.0)
    assert result["steady_ratio"] == pytest.approx(4 / 3)
    assert result["whole_ratio"] == 2.0


def test_planning_sees_the_whole_input_and_every_mark() -> None:
    result = planning.measure(Namespace(shards=3, samples=5, marks=20, chunk_size=2))
    for part in ("first", "again", "with finished chunks"):
        assert (result[part]["samples"], result[part]["chunks"]) == (15, 9)
    assert result["listing"]["marks"] == 20
    assert result["listing"]["peak_rss_mb"] > result["listing"]["of_which_by_the_work_mb"] >= 0


@pytest.mark.slow
def test_the_flow_is_measured_beside_the_bare_loop(tmp_path: Path) -> None:
    sizes = ["--samples", "24", "--chunk-size", "4", "--seconds", "0.05", "--size-px", "64"]
    command = [sys.executable, "benchmarks/pipeline.py", "efficiency", *sizes, "--json", str(tmp_path / "result.json")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, stdout=subprocess.DEVNULL)
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result) == {"command", "date", "hardware", "results"}
    assert result["results"]["samples"] == 24
    assert result["results"]["bare_s"] == pytest.approx(1.2, rel=0.3)
    assert result["results"]["steady_ratio"] > 0.9
