"""The command line of the recipe. `tests/unicon/training/test_adapter.py` runs the recipe itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.train_mini import parse, recipe_of
from unicon.training.mini.recipe import SQUARE, TALL, WIDE, MiniRecipe

REQUIRED = ["--work", "w", "--output", "o"]


def test_without_options_it_is_the_recipe() -> None:
    recipe = recipe_of(parse(REQUIRED))
    assert recipe == MiniRecipe(together=replace(MiniRecipe().together, seed=MiniRecipe().seed))


def test_seed_shares_and_sizes_are_taken() -> None:
    options = ["--seed", "7", "--steps", "9", "--share", "depth=0.25", "--share", "pose=3"]
    options += ["--batch-size", "512", "--checkpoint-every", "4", "--scenes", "2400", "--single-step-share", "0.25"]
    options += ["--learning-rate-scale", "0.5"]
    recipe = recipe_of(parse([*REQUIRED, *options]))
    assert recipe.single_step_share == 0.25
    assert recipe.together.matrix_learning_rate == 0.5 * (MiniRecipe().together.matrix_learning_rate or 0)
    assert (recipe.sampling.batch_size, recipe.together.checkpoint_every) == (512, 4)
    assert recipe.scenes == {SQUARE: 2400, WIDE: 200, TALL: 200}
    assert recipe.shares == {**MiniRecipe().shares, "depth": 0.25, "pose": 3.0}  # no adapter is left behind
    assert (recipe.seed, recipe.together.seed, recipe.together.steps) == (7, 7, 9)


@pytest.mark.parametrize("share", ["depth", "depth=much", "depth=0", "depth=-1", "depth=nan", "depth=inf", "dept=0.5"])
def test_a_wrong_share_is_refused_before_any_work(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*REQUIRED, "--share", share])
    assert f"depth, edge, pose and a positive number, such as depth=0.6; got '{share}'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps", "--batch-size", "--checkpoint-every", "--scenes"])
def test_numbers_that_leave_nothing_to_do_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*REQUIRED, option, "0"])
    assert option in capsys.readouterr().err
