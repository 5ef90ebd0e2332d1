"""Corpora of fake engines, and runs of real ones in this process."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from jobs import _corpus, build_corpus
from pipelines.runs import runner
from pipelines.runs.environment import Environment
from pipelines.runs.row_run import TaskStage
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.estimation import Estimation
from tests.support.fake_depth import FakeDepth
from tests.support.in_process import InProcess


def fake_engines(**fakes: FakeDepth) -> list[_corpus.Engine]:
    """Return an engine for each condition, `depth` or `edge`."""
    engines = []
    for name, fake in fakes.items():
        condition = ConditionColumn(name=name, kind=name)
        task = Estimation(conditions=(condition,), max_pixels=1 << 30)
        stage = TaskStage(task=task, model=fake, batch_size=4, name=f"model {name}")
        provenance = {f"{name}_engine": "fake"}
        engines.append(
            _corpus.Engine(stage=stage, names=(name,), conditions=(condition,), provenance=provenance, is_light=True)
        )
    return engines


def run_fake_corpus(arguments: Sequence[str], *, in_process: bool = False, **fakes: FakeDepth) -> int:
    """Run build_corpus with fake engines, in Ray or in this process, and return its exit code."""
    conditions = [word for name in fakes for word in ("--condition", f"{name}=unicon")]
    options = build_corpus.parse([*arguments, *conditions])
    run, engines = build_corpus.corpus_run(options, fake_engines(**fakes))
    environment = here() if in_process else None
    return runner.run_job(run.as_job(), _corpus.request_of(options, engines), environment)


def run_corpus_here(arguments: Sequence[str], said: list[str] | None = None) -> int:
    """Run build_corpus with its real engines in this process, and return its exit code."""
    options = build_corpus.parse(list(arguments))
    run, engines = build_corpus.corpus_run(options)
    return runner.run_job(run.as_job(), _corpus.request_of(options, engines), here(said))


def here(said: list[str] | None = None) -> Environment:
    """Return the environment of a run in this process; what it says is added to `said`."""
    say: Any = (lambda text: None) if said is None else said.append
    return Environment(
        executor=InProcess(), say=say, heartbeat=lambda beat: nullcontext(), afterwards=lambda output: None
    )
