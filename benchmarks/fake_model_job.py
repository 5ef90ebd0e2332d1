"""jobs/estimate_depth.py with a fake model.

python -m benchmarks.fake_model_job SECONDS --input in/ --output out/     # SECONDS: the model sleeps per sample
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from benchmarks.fake_model import FakeModel
from jobs import _cli, estimate, estimate_depth
from pipelines.runs import runner
from pipelines.runs.task_run import TaskRun
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_identity import ModelIdentity, identify_model
from unicon.adapters.config import Recommended


def task_run_of(arguments: Sequence[str], model: FakeModel | None) -> tuple[TaskRun, Namespace]:
    """Return what jobs/estimate_depth.py makes of these arguments, with the fake model if given, and its options."""
    options = estimate_depth.parse(list(arguments))
    if model is None:
        real = UniConModel(model=options.model, conditions=("depth",))
        return estimate.task_run(options, identify_model(real), real), options
    identity = ModelIdentity(
        model="fake",
        adapter="depth",
        conditions=(ConditionColumn(name="depth", kind="depth"),),
        recommended={"depth": Recommended(steps=1)},
        weights_sha256="0" * 64,
    )
    return estimate.task_run(options, identity, model), options


def main() -> int:
    """Run the command."""
    run, options = task_run_of(sys.argv[2:], FakeModel(seconds=float(sys.argv[1])))
    return runner.run_job(run.as_job(), _cli.request_of(options))


if __name__ == "__main__":
    _cli.finish(main)
