"""What a step trains follows from its number; contradictions are refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.support.pair_rows import tiny_recipe
from unicon.adapters.config import AdapterConfig
from unicon.training.recipe import AdapterRecipe, StepKind, TrainedAdapter, epochs_to_steps


def test_steps_are_shared_out() -> None:
    recipe = tiny_recipe(["canny", "depth"], steps=4000, single_step_share=0.25)
    recipe = replace(recipe, adapters=(replace(recipe.adapters[0], share=3.0), recipe.adapters[1]))
    counts = Counter(recipe.step_kind(step) for step in range(4000))
    assert counts.keys() == {
        StepKind(True, ("canny", "depth")), StepKind(False, ("canny",)), StepKind(False, ("depth",))
    }  # fmt: skip
    assert counts[StepKind(True, ("canny", "depth"))] == pytest.approx(1000, abs=100)
    assert counts[StepKind(False, ("canny",))] == pytest.approx(3 * counts[StepKind(False, ("depth",))], rel=0.15)


def test_the_last_steps_train_single_steps() -> None:
    recipe = tiny_recipe(steps=10, single_step_steps=3)
    assert [recipe.step_kind(step).single_step for step in range(10)] == [False] * 7 + [True] * 3
    assert all(config.single_step and config.estimation_steps == 1 for config in recipe.configs.values())
    assert not any(config.single_step for config in tiny_recipe().configs.values())


def test_unknown_kinds_are_not_mirrored() -> None:
    assert tiny_recipe().make_views(32, 4).flip_probability == 0.5
    own = TrainedAdapter(config=AdapterConfig(name="own", kind="something_of_a_user"))
    recipe = replace(tiny_recipe(), adapters=(own,), resolution_px=64)
    views = recipe.make_views(32, 4)
    assert views.flip_probability == 0 and views.resolution_px == 64 and views.aspect_buckets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapters": ()}, "at least one adapter"),
        ({"adapters": tiny_recipe(["depth"]).adapters * 2}, "different names"),
        ({"single_step_share": 1.5}, "single_step_share lies in"),
        ({"single_step_steps": 5}, "between 0 and the 4 steps; got 5"),
        ({"gradient_accumulation": 0}, "at least 1; got 0"),
    ],
)
def test_contradictions_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny_recipe(), **options)
    with pytest.raises(ValueError, match="share of an adapter is positive"):
        TrainedAdapter(config=AdapterConfig(name="depth"), share=0)


def test_the_defaults_are_those_of_the_paper() -> None:
    recipe = AdapterRecipe(adapters=(TrainedAdapter(config=AdapterConfig(name="depth")),), fit=tiny_recipe().fit)
    assert recipe.configs["depth"].rank == 64 and recipe.sampling.batch_size == 16
    assert recipe.sampling.min_snr_gamma == 5 and recipe.sampling.text_dropout == 0.1
    assert epochs_to_steps(17125, 16) == 21407 and epochs_to_steps(1, 16, epochs=1) == 1
