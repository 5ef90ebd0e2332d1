"""The estimate_depth command with the fake model, as a process of its own: `run_fake_job.py DELAY_S options...`."""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, estimate, estimate_depth  # noqa: E402
from pipelines import runner  # noqa: E402
from pipelines.conditions import ConditionColumn  # noqa: E402
from pipelines.predictors import ModelIdentity  # noqa: E402
from tests.fake_depth import FakeDepth  # noqa: E402

FAKE = ModelIdentity(
    model="fake",
    adapter="depth",
    conditions=(ConditionColumn(name="depth", kind="depth"),),
    num_inference_steps=10,
    weights_sha256="0" * 64,
)


def run(arguments: list[str], fake: FakeDepth) -> int:
    """The exit code of the command with the fake model."""
    options: Namespace = estimate_depth.parse(arguments)
    return runner.run_job(estimate.task_run(options, FAKE, fake).as_job(), _cli.request_of(options))


if __name__ == "__main__":
    _cli.finish(lambda: run(sys.argv[2:], FakeDepth(delay_s=float(sys.argv[1]))))
