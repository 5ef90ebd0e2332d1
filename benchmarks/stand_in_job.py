"""jobs/estimate_depth.py with a stand-in for its model.

python -m benchmarks.stand_in_job SECONDS --input in/ --output out/     # SECONDS: of the model, a sample, asleep
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from benchmarks.stand_in import StandIn
from jobs import _cli, estimate, estimate_depth
from pipelines.runs import runner
from pipelines.runs.task_run import TaskRun
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.model import ModelIdentity, UniConModel, identify_model
from unicon.adapters.config import Recommended


def task_run_of(arguments: Sequence[str], model: StandIn | None) -> tuple[TaskRun, Namespace]:
    """What jobs/estimate_depth.py makes of these arguments, with the stand-in where one is given, and its options."""
    options = estimate_depth.parse(list(arguments))
    if model is None:
        real = UniConModel(model=options.model, conditions=("depth",))
        return estimate.task_run(options, identify_model(real), real), options
    identity = ModelIdentity(
        model="stand-in",
        adapter="depth",
        conditions=(ConditionColumn(name="depth", kind="depth"),),
        recommended=Recommended(steps=1),
        weights_sha256="0" * 64,
    )
    return estimate.task_run(options, identity, model), options


def main() -> int:
    """The command."""
    run, options = task_run_of(sys.argv[2:], StandIn(seconds=float(sys.argv[1])))
    return runner.run_job(run.as_job(), _cli.request_of(options))


if __name__ == "__main__":
    _cli.finish(main)
