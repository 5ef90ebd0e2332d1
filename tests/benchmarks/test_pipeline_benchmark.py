"""The benchmark of the data plane counts correctly; at realistic sizes it is run manually."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import planning, scaling
from benchmarks.efficiency import Times
from benchmarks.fake_model import FakeModel, read_log
from tests.support.paths import PROJECT_ROOT


def test_ratios_of_a_pipeline_to_the_bare_loop() -> None:
    times = Times(receipts=[(7.0, 4, 1.0), (9.0, 4, 1.0), (11.0, 4, 1.5), (13.0, 2, 1.5)], wall_s=14.0)
    result = times.beside(bare_s=7.0)
    assert (result["samples"], result["first_receipt_s"], result["steady_s"]) == (14, 7.0, 4.0)
    assert result["steady_bare_s"] == pytest.approx(3.0)
    assert result["steady_ratio"] == pytest.approx(4 / 3)
    assert (result["whole_ratio"], result["device_busy_share"]) == (2.0, 0.75)


def test_planning_sees_the_whole_input_and_every_mark() -> None:
    result = planning.measure(Namespace(shards=3, samples=5, marks=20, chunk_size=2))
    for part in ("first", "again", "with finished chunks"):
        assert (result[part]["samples"], result[part]["chunks"]) == (15, 9)
    assert result["listing"]["marks"] == 20
    assert result["listing"]["peak_rss_mb"] > result["listing"]["of_which_by_the_work_mb"] >= 0


def test_share_of_time_during_which_models_work() -> None:
    one, other = [(2.0, 4.0), (4.0, 6.0), (6.0, 8.0), (8.0, 10.0)], [(3.0, 5.0), (6.0, 8.0), (8.0, 10.0), (10.0, 12.0)]
    result = scaling.busy([one, other], began=1.0, ahead=1)
    assert (result["models"], result["first_call_s"], result["all_at_work_s"]) == (2, 1.0, 2.0)
    assert result["steady_s"] == 5.0  # from 3, when the other begins, to 8, when two calls are left
    assert result["efficiency"] == pytest.approx((5 + 4) / 10)
    assert result["efficiency_with_start_and_end"] == pytest.approx((8 + 8) / 20)
    with pytest.raises(ValueError, match="more chunks"):
        scaling.busy([one[:1], other[-1:]], began=1.0, ahead=1)


def test_models_record_when_they_work(tmp_path: Path) -> None:
    model = FakeModel(seconds=0.02, log=str(tmp_path))
    for _ in range(2):
        model.estimate([Image.new("RGB", (8, 8))] * 2, "depth")
    ((first, second),) = read_log(tmp_path)
    assert first[1] - first[0] >= 0.04
    assert first[1] <= second[0] < second[1]


@pytest.mark.slow
def test_the_pipeline_is_compared_with_the_bare_loop(tmp_path: Path) -> None:
    sizes = ["--samples", "24", "--chunk-size", "4", "--seconds", "0.05", "--size-px", "64"]
    command = [sys.executable, "benchmarks/pipeline.py", "efficiency", *sizes, "--json", str(tmp_path / "result.json")]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, timeout=300, stdout=subprocess.DEVNULL)
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result) == {"command", "date", "hardware", "results"}
    measured = result["results"]["0.05 s"]
    assert measured["samples"] == 24
    assert measured["bare_s"] >= 24 * 0.05, "the fake model sleeps that long for every sample"
    assert measured["steady_ratio"] > 0, "a number; how large it is depends on the machine"
    assert measured["device_busy_share"] > 0
