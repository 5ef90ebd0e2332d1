"""Two processes train like one, and a training goes on with another number of processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.support.paths import PROJECT_ROOT
from tests.support.train_worker import train
from unicon.training.checkpoints import STATE_FILE

TIMEOUT_S = 600


class Trained(NamedTuple):
    """What two processes, and one, wrote."""

    two: Path
    one: Path
    steps: int


@pytest.fixture(scope="module", params=[6, pytest.param(20, marks=pytest.mark.slow)])
def trained(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training with this number of steps."""
    steps, two, one = request.param, tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    command = [sys.executable, "-m", "tests.support.train_worker", str(tiny_folder), str(two), str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, str(rank), "2"], cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        train(tiny_folder, one, steps)
        for worker in workers:
            _, errors = worker.communicate(timeout=TIMEOUT_S)
            assert worker.returncode == 0, errors.decode()
    finally:
        for worker in workers:
            worker.kill()
    return Trained(two, one, steps)


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records}


def largest_difference(one: Path, other: Path) -> float:
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_two_workers_train_like_one(trained: Trained) -> None:
    """With three and two rows of a batch of five."""
    assert losses(trained.two / "trained") == pytest.approx(losses(trained.one), rel=1e-4)
    assert len(losses(trained.one)) == trained.steps
    first, second = (trained.two / "trained" / f"trained-{rank}.pt" for rank in range(2))
    assert largest_difference(first, trained.one / "trained-0.pt") < 1e-4
    assert largest_difference(first, second) == 0


def test_a_training_goes_on_with_fewer_workers(trained: Trained, tiny_folder: Path, tmp_path: Path) -> None:
    """One worker goes on from a checkpoint of two."""
    half = trained.steps // 2
    shutil.copy(trained.two / "trained" / f"state-{half}.pt", tmp_path / STATE_FILE)
    train(tiny_folder, tmp_path, trained.steps)
    expected = {step: loss for step, loss in losses(trained.one).items() if step > half}
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-3)
    assert largest_difference(tmp_path / "trained-0.pt", trained.one / "trained-0.pt") < 1e-3


def test_every_worker_names_the_rows_that_are_not_finite(trained: Trained) -> None:
    found = [json.loads((trained.two / f"error-{rank}.json").read_text()) for rank in range(2)]
    assert found == [[0, ["1-1"]]] * 2
