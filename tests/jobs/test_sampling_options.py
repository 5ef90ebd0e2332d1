"""Sampling options: each one is in the columns and in the configuration hash, and none is ignored silently."""

from __future__ import annotations

import argparse
import subprocess
import sys
from argparse import Namespace
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from jobs import (
    _cli,
    _evaluation_options,
    estimate,
    estimate_depth,
    evaluate,
    generate_pairs,
    inpaint,
    synthesize,
    train_adapter,
)
from jobs._sampling import in_option_names
from pipelines.evaluation.join import PROVENANCE
from pipelines.planning.claims import configuration_hash
from pipelines.readers.prompts import PromptFiles
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import write_folder
from tests.support.paths import PROJECT_ROOT
from tests.support.run_fake_job import identity
from unicon.limits import ModelLimits
from unicon.options import SamplingOptions, SamplingSettings, option_names

IN = ["--input", "x", "--output", "y"]
JOBS: dict[str, tuple[ModuleType, list[str]]] = {
    "estimate": (estimate, [*IN, "--condition", "depth"]),
    "synthesize": (synthesize, [*IN, "--condition", "depth=depth"]),
    "generate_pairs": (generate_pairs, ["--prompts", "x", "--output", "y"]),
    "inpaint": (inpaint, [*IN, "--mask-column", "mask", "--condition", "depth"]),
}
CHANGES_NO_ROW = {
    "help", "input", "output", "limit", "since", "model", "adapter", "lora", "vae", "chunk_size", "batch_size",
    "actors", "num_gpus_per_actor", "compile", "compile_cache", "max_gpu_hours", "preset", "retry_errors", "give_up",
    "max_error_rate", "chunk_timeout", "output_format", "published", "condition", "engine", "engine_option",
    "engine_weights",
}  # fmt: skip
"""Options that change no row, or that the identity of the model or engine or another test covers."""
OTHER_VALUES = {
    "weight": ["depth=0.5"], "where": ["width>5"], "views": 2, "ensemble": 3, "size": (64, 64), "sampler": "euler",
    "timestep_spacing": "leading", "given_at": "last_index", "set_alpha_to_one": False, "dtype": "bfloat16",
    "guidance_scale": 3.0, "eta": 0.5, "coarse": 0.5, "condition_guidance_scale": 2.0, "one_way": True,
    "map_decoder": "small",
}  # fmt: skip


def parsed(name: str, *options: str) -> Namespace:
    job, needed = JOBS[name]
    return job.parse([*needed, *options])


def run_of(name: str, options: Namespace, *conditions: str) -> Any:
    return JOBS[name][0].task_run(options, identity(*(conditions or ("depth",))), FakeDepth())


def hash_of(name: str, options: Namespace) -> str:
    return configuration_hash(run_of(name, options).settings)


@pytest.mark.parametrize("name", JOBS)
def test_every_option_is_in_the_hash_or_named_as_changing_no_row(name: str) -> None:
    before, known = hash_of(name, parsed(name)), vars(parsed(name))
    for option, value in known.items():
        if option in CHANGES_NO_ROW:
            continue
        other = OTHER_VALUES.get(option, 7 if value is None or isinstance(value, int | float) else "other")
        other = {"resolution": 512, "caption_column": "c", "key_column": "k", "prompt_column": "p"}.get(option, other)
        changed = parsed(name)
        setattr(changed, option, other)
        assert hash_of(name, changed) != before, option


@pytest.mark.parametrize("name", JOBS)
def test_hashes_of_existing_outputs_stay(name: str) -> None:
    """With later options at their defaults, the settings are those that existing outputs have."""
    settings = run_of(name, parsed(name)).settings
    model = {"model": "fake", "weights_sha256": "0" * 64, "adapter": "depth", "seed": 0, "code_version": "1"}
    data = {"key_column": None, "caption_column": None, "max_pixels": 100_000_000}
    generated = {
        **model, "num_inference_steps": 20, "guidance_scale": 7.5, "condition_guidance_scale": 0.0, "sampler": "ddim",
    }  # fmt: skip
    expected = {
        "estimate": {
            **model, **data, "job": "estimate_depth", "num_inference_steps": 10, "guidance_scale": 1.0,
            "image_column": None,
        },
        "synthesize": {
            **generated, **data, "job": "synthesize", "conditions": {"depth": "depth"}, "prompt": "",
            "images_per_row": 1,
        },
        "generate_pairs": {
            **generated, "job": "generate_pairs", "conditions": ["depth"], "size": None, "pairs_per_prompt": 1,
            "prompt_column": None, "key_column": None,
        },
        "inpaint": {
            **generated, **data, "job": "inpaint", "condition": ["depth"], "prompt": "", "mask_column": "mask",
            "image_column": None,
        },
    }[name]  # fmt: skip
    assert settings == expected
    assert all(type(settings[key]) is type(value) for key, value in expected.items())


@pytest.mark.parametrize("entry", fields(SamplingOptions), ids=lambda entry: entry.name)
def test_every_field_is_an_option_a_column_and_an_argument(entry: Any) -> None:
    hints = get_type_hints(SamplingSettings)
    assert hints[entry.name] == get_type_hints(SamplingOptions)[entry.name]
    other = OTHER_VALUES.get(option_names()[entry.name].removeprefix("--").replace("-", "_"), 64)
    assert replace(SamplingOptions(), **{entry.name: other}).columns() == {entry.name: other}
    assert entry.name in PROVENANCE, "evaluate.py says how estimates were made"
    assert getattr(parsed("estimate"), option_names()[entry.name].removeprefix("--").replace("-", "_")) is None


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--guidance-scale", "nan"],
            "argument --guidance-scale: nan is out of range; expected a finite number from 0 to 100",
        ),
        (
            ["--guidance-scale", "inf"],
            "argument --guidance-scale: inf is out of range; expected a finite number from 0 to 100",
        ),
        (["--guidance-scale", "-1"], "argument --guidance-scale"),
        (
            ["--guidance-scale", "1e30"],
            "argument --guidance-scale: 1e30 is out of range; expected a finite number from 0 to 100",
        ),
        (
            ["--condition-guidance-scale", "nan"],
            "argument --condition-guidance-scale: nan is out of range; expected a finite number from 0 to 100",
        ),
        (["--resolution", "100000"], "argument --resolution: 100000 is too large; the maximum is 8192"),
        (["--resolution", "8"], "argument --resolution: 8 is too small; the minimum is 16"),
        (["--steps", "1001"], "argument --steps: 1001 is too large; the maximum is 1000"),
        (["--steps", "99", "--sampler", "lcm"], "--steps of lcm is at most 50; got 99"),
        (["--eta", "1.5"], "argument --eta: 1.5 is out of range; expected a finite number from 0 to 1"),
        (["--eta", "0.5", "--sampler", "euler"], "--eta belongs to sampler ddim; got 0.5 with 'euler'"),
        (["--seed", "-1"], "argument --seed"),
        (["--seed", "9223372036854775808"], "too large; the maximum is 9223372036854775807"),
        (["--batch-size", "0"], "argument --batch-size: 0 is too small"),
        (["--batch-size", "1000000"], "argument --batch-size: 1000000 is too large"),
        (["--timestep-spacing", "leading", "--sampler", "lcm"], "got --timestep-spacing leading. Leave it out"),
        (["--no-set-alpha-to-one", "--sampler", "euler"], "got --set-alpha-to-one false with 'euler'"),
        (["--published", "--timestep-spacing", "trailing"], "has --timestep-spacing 'leading'; got 'trailing'"),
        (["--published", "--set-alpha-to-one"], "has --set-alpha-to-one False; got True"),
        (["--published", "--sampler", "lcm"], "Published sampling has no sampler lcm"),
        (["--published", "--eta", "1"], "has --eta 0.0; got 1.0"),
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
    ],
)
def test_wrong_numbers_and_contradictions(
    name: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        job, needed = JOBS[name]
        return job.main([*needed, "--model", "/no/such/model", *options])  # what is refused is not even looked for

    with pytest.raises(SystemExit) as exit_:
        _cli.finish(main)
    text = capsys.readouterr().err
    assert exit_.value.code == 2 and message in text and "Traceback" not in text


IGNORED: dict[str, tuple[str, list[str], str]] = {
    "negative prompt without guidance": (
        "synthesize", ["--negative-prompt", "fog", "--guidance-scale", "1"], "--negative-prompt 'fog' needs",
    ),
    "negative prompt with the guidance of lcm": (
        "generate_pairs", ["--negative-prompt", "fog", "--sampler", "lcm"], "--negative-prompt 'fog' needs",
    ),
    "the start of exact conditions with rough ones": (
        "synthesize", ["--coarse", "0.5", "--given-at", "last_index"], "with --coarse 0.5 they start at",
    ),
    "one way with rough conditions": (
        "synthesize", ["--coarse", "0.5", "--one-way"], "with --coarse 0.5 they change together with",
    ),
    "mirrored views of poses": ("estimate", ["--views", "4"], "distinguishes left from right"),
    "one step from the last index": (
        "estimate", ["--given-at", "last_index", "--steps", "1"], "With one step the last step index is pure noise",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IGNORED)
def test_no_option_is_ignored(case: str) -> None:
    name, options, message = IGNORED[case]
    with pytest.raises(_cli.SettingError, match=message):
        run_of(name, parsed(name, *options), "pose" if "poses" in case else "depth")


def test_no_option_is_ignored_where_conditions_or_texts_are_missing() -> None:
    alone = inpaint.parse([*IN, "--mask-column", "m", "--condition-guidance-scale", "2"])
    with pytest.raises(_cli.SettingError, match="needs a --condition"):
        inpaint.task_run(alone, identity(), FakeDepth())
    options = estimate.parse([*IN, "--condition", "appearance", "--guidance-scale", "3"])
    with pytest.raises(_cli.SettingError, match="have no trigger text"):
        estimate.task_run(options, identity("appearance"), FakeDepth())


@pytest.mark.parametrize(
    ("measure", "condition", "option"),
    [("correlation", "depth", option) for option in ("--max-depth-m", "--baseline-scenes", "--baseline-seed")]
    + [("accuracy", "edge", "--max-depth-m")],
)
def test_evaluate_says_which_option_has_no_effect(
    measure: str, condition: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--predictions", "a", "--truth", "b", "--condition", condition, "--measure", measure, option, "5"]
    _evaluation_options.report_unused_options(evaluate.parse(words), has_scenes=True)
    assert f"{option} has no effect" in capsys.readouterr().err
    _evaluation_options.report_unused_options(evaluate.parse(words[:-2]), has_scenes=True)
    assert capsys.readouterr().err == ""


def test_columns_of_text_files_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"p.txt": b"a cat\n"})
    for prompts in (PromptFiles(column="text"), PromptFiles(key="id")):
        with pytest.raises(_cli.SettingError, match="the prompts are text files"):
            prompts.find([str(tmp_path)], str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--condition", "edge", "--annotator", "midas"], "make edge maps are canny, hed, pidinet, teed, lineart"),
        (["--condition", "depth", "--annotator", "hed"], "make depth maps are midas, zoe, leres; got 'hed'"),
        (["--condition", "edge", "--annotator", "hedd"], "got 'hedd'"),
        (["--condition", "edge", "--annotator-weights", "w"], "canny has no weights; got 'w'"),
        (["--condition", "edge", "--annotator", "."], "canny has no weights"),
        (
            ["--condition", "edge", "--annotator", "hed", "--annotator-weights", "."],
            "HEDdetector needs ControlNetHED",
        ),
        (["--condition", "edge", "--conditions", "IN", "--annotator", "hed"], "--annotator hed creates conditions"),
        (["--condition", "edge", "--conditions", "IN", "--annotator-weights", "w"], "--annotator-weights w creates"),
        (["--condition", "edge", "--resolution", "100000"], "--resolution: 100000 is too large"),
        (["--condition", "edge", "--learning-rate", "nan"], "--learning-rate: nan is out of range"),
    ],
)
def test_training_ignores_no_option(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.images import write_squares

    images = write_squares(tmp_path / "in", 2)
    words = ["--model", "mini", "--images", str(images), "--device", "cpu", "--output", str(tmp_path / "a.safetensors")]
    words += ["--work", str(tmp_path / "work"), *(str(images) if word == "IN" else word for word in options)]
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: train_adapter.main(words))
    text = capsys.readouterr().err
    assert exit_.value.code == 2 and message in text and "Traceback" not in text


def test_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for job in (estimate, estimate_depth, synthesize):
        with pytest.raises(SystemExit):
            job.parse(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert "(default: ddim)" in text and "(default: trailing)" in text and "--published" in text
        assert "guidance scales of 1 to 2" in text


def test_limits_of_a_model_are_known_before_it_is_loaded() -> None:
    limits = ModelLimits(native_px=512, multiple_px=64, steps_offset=1)
    for options, message in (
        (SamplingOptions(resolution_px=32), "resolution_px of this model, trained for 512 pixels, is 64 to 4096; got"),
        (SamplingOptions(resolution_px=5000), "got 5000"),
        (SamplingOptions(timestep_spacing="leading", num_inference_steps=1000), "at most 999; got 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            limits.check(options)
    limits.check(SamplingOptions(resolution_px=768, num_inference_steps=1000))
    assert in_option_names("resolution_px of it, eta and sampler") == "--resolution of it, --eta and sampler"


def test_choices_are_those_of_the_library() -> None:
    parser = argparse.ArgumentParser()
    from jobs._options import add_model_options

    add_model_options(parser.add_argument_group("model"), {})
    choices = {action.dest: action.choices for action in parser._actions}
    hints = get_type_hints(SamplingOptions)
    assert choices["sampler"] == list(get_args(hints["sampler"]))
    assert choices["given_at"] == list(get_args(hints["given_at"]))
    assert choices["timestep_spacing"] == ["trailing", "leading", "linspace"]


def test_commands_cost_no_torch() -> None:
    options = "unicon.options, unicon.limits, unicon.outcomes, jobs._sampling, jobs.estimate, jobs.synthesize"
    command = "pipelines.runs.runner, pipelines.runs.report_page, pipelines.dataset.preview, unicon.conditions"
    light = f"import {options}, {command}, sys"
    subprocess.run([sys.executable, "-c", f"{light}; assert 'torch' not in sys.modules"], check=True, cwd=PROJECT_ROOT)
