"""Commands with the fake model.

As a script it runs estimate_depth: `run_fake_job.py DELAY_S [--fails-while FILE] [--engines 2] options...`; see
`FakeDepth`. With two engines, it runs build_corpus.
"""

import argparse
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs import _cli, estimate, estimate_depth  # noqa: E402
from pipelines.runs import runner  # noqa: E402
from pipelines.tasks.condition_columns import ConditionColumn  # noqa: E402
from pipelines.tasks.model_identity import ModelIdentity  # noqa: E402
from tests.support.fake_depth import FakeDepth  # noqa: E402
from unicon.adapters.config import Recommended  # noqa: E402


def identity(*conditions: str) -> ModelIdentity:
    """Return the identity of the fake model with an adapter for each condition."""
    return ModelIdentity(
        model="fake",
        adapter="+".join(conditions),
        conditions=tuple(ConditionColumn(name=name, kind=name) for name in conditions),
        recommended=dict.fromkeys(conditions, Recommended(steps=10)),
        weights_sha256="0" * 64,
    )


def run(arguments: list[str], fake: FakeDepth) -> int:
    """Run estimate_depth with the fake model and return its exit code."""
    return run_command(estimate_depth.parse(arguments), estimate, fake, "depth")


def run_command(options: Namespace, command: Any, fake: FakeDepth, *conditions: str) -> int:
    """Run a command of `jobs` with the fake model and adapters, and return its exit code."""
    return runner.run_job(command.task_run(options, identity(*conditions), fake).as_job(), _cli.request_of(options))


def main() -> int:
    """Run the job with the fake models that the first arguments describe, and return its exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("delay_s", type=float)
    parser.add_argument("--fails-while", default="")
    parser.add_argument("--engines", type=int, choices=(1, 2), default=1)
    fake, options = parser.parse_known_args()
    model = FakeDepth(delay_s=fake.delay_s, fails_while=fake.fails_while)
    if fake.engines == 1:
        return run(options, model)
    from tests.support.fake_corpus import run_fake_corpus

    return run_fake_corpus(options, depth=FakeDepth(delay_s=fake.delay_s / 2), edge=model)


if __name__ == "__main__":
    _cli.finish(main)
