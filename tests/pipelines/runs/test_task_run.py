"""From a command line to the settings and the task of a run: sampling options are one value all the way."""

from argparse import Namespace
from dataclasses import Field, fields, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from jobs import _cli, estimate, generate_pairs, inpaint, synthesize
from pipelines.planning.claims import configuration_hash
from pipelines.runs.task_run import TaskRun
from tests.support.fake_depth import FakeDepth
from tests.support.run_fake_job import identity
from unicon.options import SamplingOptions

IN = ["--input", "x", "--output", "y"]
JOBS: dict[str, tuple[ModuleType, list[str]]] = {
    "estimate": (estimate, [*IN, "--condition", "depth"]),
    "synthesize": (synthesize, [*IN, "--condition", "depth=depth"]),
    "generate_pairs": (generate_pairs, ["--prompts", "x", "--output", "y"]),
    "inpaint": (inpaint, [*IN, "--mask-column", "mask", "--condition", "depth"]),
}
OTHER_VALUES: dict[str, tuple[list[str], Any]] = {
    "num_inference_steps": (["7"], 7),
    "guidance_scale": (["3"], 3.0),
    "condition_guidance_scale": (["2"], 2.0),
    "sampler": (["euler"], "euler"),
    "eta": (["0.5"], 0.5),
    "timestep_spacing": (["leading"], "leading"),
    "set_alpha_to_one": ([], False),
    "given_at": (["last_index"], "last_index"),
    "resolution_px": (["512"], 512),
    "one_way": ([], True),
    "map_decoder": (["small"], "small"),
}
"""Field of `SamplingOptions` -> arguments of its option, and the value that they mean."""
WITHOUT_OPTION = {(name, field) for name in ("generate_pairs", "inpaint") for field in ("given_at", "one_way")}
"""(job, field) for which nothing is given, so that the field changes no result."""
SAMPLING_FIELDS = fields(SamplingOptions)


def run_of(name: str, *options: str) -> TaskRun:
    job, needed = JOBS[name]
    parsed: Namespace = job.parse([*needed, *options])
    return job.task_run(parsed, identity("depth"), FakeDepth())


class Recording:
    """A model that records the options of its calls; there are no rows."""

    def __init__(self) -> None:
        self.options: list[SamplingOptions] = []

    def estimate(self, *arguments: Any, options: SamplingOptions, **others: Any) -> list[Any]:
        assert not others.keys() & {entry.name for entry in SAMPLING_FIELDS}, "a setting is passed on its own"
        self.options.append(options)
        return []

    synthesize = generate_pairs = inpaint = estimate

    def adapter_kind(self, name: str) -> Any:
        return SimpleNamespace(encode=None, decode=None)


def test_every_field_has_another_value_here() -> None:
    assert OTHER_VALUES.keys() == {entry.name for entry in SAMPLING_FIELDS}


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("entry", SAMPLING_FIELDS, ids=lambda entry: entry.name)
def test_every_sampling_field_reaches_the_task_the_columns_and_the_hash(name: str, entry: Field[Any]) -> None:
    option, (arguments, value) = entry.metadata["option"], OTHER_VALUES[entry.name]
    if (name, entry.name) in WITHOUT_OPTION:
        with pytest.raises(SystemExit):
            run_of(name, option, *arguments)
        return
    option = option.replace("--", "--no-", 1) if value is False else option
    plain, changed = run_of(name), run_of(name, option, *arguments)
    assert getattr(changed.task.sampling, entry.name) == value != getattr(plain.task.sampling, entry.name)
    assert changed.provenance[entry.name] == changed.settings[entry.name] == value
    assert configuration_hash(changed.settings) != configuration_hash(plain.settings)


@pytest.mark.parametrize("name", JOBS)
def test_the_model_gets_the_value_of_the_task(name: str) -> None:
    model, run = Recording(), run_of(name, "--steps", "7")
    assert run.task.compute(model, [], []) == []
    (options,) = model.options
    assert options is run.task.sampling and options.num_inference_steps == 7


def test_columns_of_every_row_are_fields() -> None:
    assert {entry.name for entry in SAMPLING_FIELDS} >= {*_cli.ALWAYS_IN_GENERATED, *_cli.ALWAYS_IN_ESTIMATES}


def test_the_offset_of_steps_counts_only_with_leading_spacing() -> None:
    def settings(*options: str) -> dict[str, Any]:
        job, needed = JOBS["estimate"]
        who = replace(identity("depth"), config={"scheduler": {"beta_end": 0.012, "steps_offset": 1}})
        run = job.task_run(job.parse([*needed, *options]), who, FakeDepth())
        return replace(run, identity=who).settings["model_config"]["scheduler"]

    assert settings() == settings("--timestep-spacing", "trailing") == {"beta_end": 0.012}
    assert settings("--timestep-spacing", "leading") == {"beta_end": 0.012, "steps_offset": 1}
