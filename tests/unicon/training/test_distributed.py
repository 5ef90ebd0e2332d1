"""Two processes train like one, and a training goes on with another number of processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.paths import PROJECT_ROOT
from tests.support.train_worker import KEPT, STEPS, train
from unicon.training.checkpoints import STATE_FILE

TIMEOUT_S = 600


@pytest.fixture(scope="module")
def output(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "tests.support.train_worker", str(tiny_folder), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, str(rank), "2"], cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=TIMEOUT_S)
            assert worker.returncode == 0, errors.decode()
    finally:
        for worker in workers:
            worker.kill()
    return folder


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process wrote."""
    folder = tmp_path_factory.mktemp("one")
    train(tiny_folder, folder)
    return folder


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records}


def largest_difference(one: Path, other: Path) -> float:
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_two_workers_train_like_one(output: Path, alone: Path) -> None:
    """With three and two rows of a batch of five."""
    assert losses(output / "whole") == pytest.approx(losses(alone), rel=1e-4) and len(losses(alone)) == STEPS
    assert largest_difference(output / "whole" / "trained-0.pt", alone / "trained-0.pt") < 1e-4
    assert largest_difference(output / "whole" / "trained-1.pt", output / "whole" / "trained-0.pt") == 0


def test_a_training_goes_on_with_fewer_workers(tiny_folder: Path, output: Path, alone: Path, tmp_path: Path) -> None:
    """One worker goes on from a checkpoint of two."""
    shutil.copy(output / "whole" / f"state-{KEPT}.pt", tmp_path / STATE_FILE)
    train(tiny_folder, tmp_path)
    expected = {step: loss for step, loss in losses(alone).items() if step > KEPT}
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-3)
    assert largest_difference(tmp_path / "trained-0.pt", alone / "trained-0.pt") < 1e-3


def test_every_worker_names_the_rows_that_are_not_finite(output: Path) -> None:
    assert [json.loads((output / "failed" / f"error-{rank}.json").read_text()) for rank in range(2)] == [
        [0, ["1-1"]]
    ] * 2
