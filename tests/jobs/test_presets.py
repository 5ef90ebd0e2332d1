"""Presets: what each one samples with, what contradicts it, and which adapters it needs."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs import _cli, estimate, generate_pairs, synthesize
from jobs._sampling import sampling_of
from pipelines.errors import SettingError
from pipelines.planning.claims import configuration_hash
from tests.support.fake_depth import FakeDepth
from tests.support.run_fake_job import identity
from unicon.adapters.config import AdapterConfig, Recommended, recommended
from unicon.options import SamplingOptions

IN = ["--input", "x", "--output", "y"]


def settings_of(*options: str, views: int = 1) -> dict[str, object]:
    known = replace(identity("depth"), recommended={"depth": Recommended(steps=10, views=views)})
    return dict(estimate.task_run(estimate.parse([*IN, *options]), known, FakeDepth()).settings)


def test_exact_is_published_sampling() -> None:
    assert settings_of("--preset", "exact") == settings_of("--published")
    assert settings_of("--published", "--preset", "exact") == settings_of("--published")
    assert settings_of("--preset", "exact", "--steps", "20") == settings_of("--published", "--steps", "20")
    assert settings_of("--preset", "exact")["num_inference_steps"] == 50


def test_balanced_is_the_default() -> None:
    assert configuration_hash(settings_of("--preset", "balanced")) == configuration_hash(settings_of())


def test_fast_is_one_step_one_view_and_one_way() -> None:
    settings = settings_of("--preset", "fast", views=4)
    assert settings == settings_of("--steps", "1", "--views", "1", "--one-way")
    assert settings["num_inference_steps"] == 1 and settings["one_way"] is True and "views" not in settings


def test_fast_uses_the_small_decoder_of_a_model_that_has_one() -> None:
    options = estimate.parse([*IN, "--preset", "fast"])
    assert sampling_of(options).map_decoder == "vae"
    assert sampling_of(options, has_map_decoder=True).map_decoder == "small"
    assert sampling_of(estimate.parse([*IN, "--preset", "balanced"]), has_map_decoder=True) == SamplingOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "fast", "--steps", "10"], "--preset fast has --steps 1; got --steps 10. Remove one"),
        (["--preset", "fast", "--views", "4"], "--preset fast has --views 1; got --views 4. Remove one"),
        (["--preset", "fast", "--no-one-way"], "--preset fast has --one-way; got --no-one-way. Remove one"),
        (["--preset", "fast", "--sampler", "lcm"], "--preset fast has --sampler ddim; got --sampler lcm"),
        (["--preset", "fast", "--guidance-scale", "3"], "has --guidance-scale 1; got --guidance-scale 3"),
        (["--preset", "fast", "--map-decoder", "vae"], "has --map-decoder small; got --map-decoder vae"),
        (["--preset", "exact", "--one-way"], "--preset exact has --no-one-way; got --one-way. Remove one"),
        (["--published", "--one-way"], "--preset exact has --no-one-way; got --one-way"),
        (["--preset", "exact", "--map-decoder", "small"], "has --map-decoder vae; got --map-decoder small"),
        (["--preset", "exact", "--timestep-spacing", "trailing"], "has --timestep-spacing 'leading'; got 'trailing'"),
        (["--published", "--preset", "fast"], "--published is --preset exact, and --preset fast is given too"),
        (["--published", "--preset", "balanced"], "--published is --preset exact, and --preset balanced is given"),
        (["--preset", "quick"], "argument --preset: invalid choice: 'quick'"),
    ],
)
def test_contradictions_are_refused_before_any_file_is_read(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: estimate.main([*IN, "--model", "/no/such/model", *options]))
    text = capsys.readouterr().err
    assert exit_.value.code == 2 and message in text and "Traceback" not in text


def test_what_agrees_with_a_preset_may_be_said_too() -> None:
    assert settings_of("--preset", "fast", "--steps", "1", "--one-way") == settings_of("--preset", "fast")
    assert settings_of("--preset", "exact", "--no-one-way") == settings_of("--published")


def test_fast_needs_adapters_that_were_trained_for_one_step() -> None:
    options = estimate.parse([*IN, "--preset", "fast"])
    with pytest.raises(SettingError, match="the adapter of depth was not trained for: .* --preset balanced, or train"):
        estimate.task_run(options, replace(identity("depth"), not_single_step=("depth",)), FakeDepth())


def test_official_adapters_and_those_of_other_trainings_are_not_for_one_step(tmp_path: Path) -> None:
    assert recommended(tmp_path) == Recommended(single_step=False)
    assert not AdapterConfig(name="depth").single_step


@pytest.mark.parametrize(
    ("command", "needed"),
    [(synthesize, [*IN, "--condition", "depth=depth"]), (generate_pairs, ["--prompts", "x", "--output", "y"])],
)
def test_generation_has_no_fast_preset_and_says_so(
    command: object, needed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.parse([*needed, "--preset", "fast"])  # type: ignore[attr-defined]
    assert "invalid choice: 'fast' (choose from" in capsys.readouterr().err
