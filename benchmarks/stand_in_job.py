"""jobs/estimate_depth.py with a stand-in for its model.

python -m benchmarks.stand_in_job SECONDS --input in/ --output out/     # SECONDS: of the model, a sample, asleep
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from benchmarks.stand_in import StandIn
from jobs import _cli, estimate, estimate_depth
from pipelines import runner
from pipelines.conditions import ConditionColumn
from pipelines.predictors import ModelIdentity
from unicon.folder import Recommended


def job_of(arguments: Sequence[str], model: StandIn) -> tuple[runner.Job, Namespace]:
    """jobs/estimate_depth.py with these arguments and the stand-in, and its options."""
    options = estimate_depth.parse(list(arguments))
    identity = ModelIdentity(
        model="stand-in",
        adapter="depth",
        conditions=(ConditionColumn(name="depth", kind="depth"),),
        recommended=Recommended(steps=1),
        weights_sha256="0" * 64,
    )
    return estimate.task_run(options, identity, model).as_job(), options


def main() -> int:
    """The command."""
    job, options = job_of(sys.argv[2:], StandIn(seconds=float(sys.argv[1])))
    return runner.run_job(job, _cli.request_of(options))


if __name__ == "__main__":
    _cli.finish(main)
