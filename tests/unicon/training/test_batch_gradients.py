"""Gradients add up over the parts of a batch, weights scale rows, and infinite rows are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.pair_rows import batches_of, draw_rows, tiny_recipe
from unicon.training.adapter import load_adapters
from unicon.training.adapter_files import AdapterTraining
from unicon.training.batch_gradients import BatchGradients
from unicon.training.batch_loss import BatchLoss
from unicon.training.batches import PairBatch
from unicon.training.recipe import AdapterRecipe
from unicon.training.single_step import SingleStepSampling
from unicon.training.workers import Workers

Change = Callable[[PairBatch], PairBatch]
FORMS = {
    "pairs": tiny_recipe(["depth"]),
    "single step": tiny_recipe(single_step_share=1.0),
    "one decoded": tiny_recipe(single_step_share=1.0, single_step=SingleStepSampling(decoded_fractions={"depth": 0.5})),
}


class Changed:
    """Batches with a change, of some rows."""

    def __init__(self, training: AdapterTraining, recipe: AdapterRecipe, change: Change, rows: list[int]) -> None:
        self.source, self.change, self.rows = batches_of(draw_rows(12), training, recipe), change, rows

    def batch(self, step: int, rank: int, world_size: int) -> PairBatch:
        """See `BatchSource`."""
        return self.change(self.source.batch(step, 0, 1)).select(self.rows)


@pytest.fixture(scope="module")
def training(tiny_folder: Path) -> AdapterTraining:
    """Two adapters of random weights, whose gradients are therefore not zero."""
    training = load_adapters(tiny_folder, tiny_recipe(), "cpu")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in training.parameters().values():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return training


def gradients(
    training: AdapterTraining,
    recipe: AdapterRecipe,
    change: Change = lambda batch: batch,
    rows: list[int] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (gradients, losses) of step 0 from some rows of the batch, as one worker that has them all."""
    parameters = training.parameters()
    for parameter in parameters.values():
        parameter.grad = None
    places = list(range(4)) if rows is None else rows
    source = Changed(training, recipe, change, places)
    step = BatchGradients(parameters, BatchLoss(training.models, training.vae, recipe), source, recipe, Workers())
    losses = step(0, torch.amp.GradScaler("cpu", enabled=False))
    return {name: value.grad.clone() for name, value in parameters.items() if value.grad is not None}, losses


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in other.values())
    assert max(float((one[name] - other[name]).abs().max()) for name in one) <= tolerance * scale


@pytest.mark.parametrize("form", FORMS)
def test_parts_of_a_batch_add_up(training: AdapterTraining, form: str) -> None:
    whole, losses = gradients(training, FORMS[form])
    parts, again = gradients(training, replace(FORMS[form], gradient_accumulation=3))
    assert_close(parts, whole)
    assert all(float(losses[name]) == pytest.approx(float(again[name]), rel=1e-4) for name in losses)
    assert any(value.any() for value in whole.values())


@pytest.mark.parametrize("form", ["pairs", "single step"])
def test_a_weight_scales_the_loss_of_its_row(training: AdapterTraining, form: str) -> None:
    """The gradient of a batch is the weighted mean of those of its rows alone."""
    weights = torch.tensor([3.0, 0.0, 1.0, 0.5])
    whole, losses = gradients(training, FORMS[form], lambda batch: replace(batch, weights=weights))
    alone = []
    for row in range(4):
        only = torch.zeros(4)
        only[row] = 7.0
        alone.append(gradients(training, FORMS[form], lambda batch, only=only: replace(batch, weights=only)))
    share = weights / weights.sum()
    expected = {name: sum(share[row] * alone[row][0][name] for row in range(4)) for name in whole}
    assert_close(whole, expected)  # type: ignore[arg-type]
    assert float(losses["loss"]) == pytest.approx(sum(float(share[row] * alone[row][1]["loss"]) for row in range(4)))


@pytest.mark.parametrize("form", ["pairs", "single step"])
def test_a_row_of_weight_0_has_no_effect(training: AdapterTraining, form: str) -> None:
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0])

    def damaged(batch: PairBatch) -> PairBatch:
        images = batch.images.float() / 127.5 - 1
        images[1] = float("nan")
        return replace(batch, images=images, weights=weights)

    plain, _ = gradients(training, FORMS[form], lambda batch: replace(batch, weights=weights))
    assert_close(gradients(training, FORMS[form], damaged)[0], plain)


def test_a_batch_without_weight_has_no_gradient(training: AdapterTraining) -> None:
    found, losses = gradients(training, FORMS["pairs"], lambda batch: replace(batch, weights=torch.zeros(4)))
    assert not any(value.any() for value in found.values()) and float(losses["loss"]) == 0


def test_rows_that_are_not_finite_are_named(training: AdapterTraining) -> None:
    recipe = FORMS["pairs"]

    def damaged(batch: PairBatch) -> PairBatch:
        images = batch.images.float() / 127.5 - 1
        images[2] = float("inf")
        return replace(batch, images=images)

    source = Changed(training, recipe, damaged, [0, 1, 2, 3])
    step = BatchGradients(
        training.parameters(), BatchLoss(training.models, training.vae, recipe), source, recipe, Workers()
    )
    losses = step(0, torch.amp.GradScaler("cpu", enabled=False))
    assert not losses["loss"].isfinite()
    error = step.failure(0)
    assert error.keys == (source.batch(0, 0, 1).keys[2],) and error.step == 0
    assert f"those of these rows are not in step 0: {error.keys[0]!r}" in str(error)


def test_a_source_gives_the_rows_of_the_worker(training: AdapterTraining) -> None:
    with pytest.raises(ValueError, match="trains 4 rows of a batch of 4; got 2 in step 0"):
        gradients(training, FORMS["pairs"], rows=[0, 1])


def test_adapters_of_a_step_alone_have_gradients(training: AdapterTraining) -> None:
    found, _ = gradients(training, FORMS["pairs"])
    assert {name.split(".")[0] for name in found} == {"depth"}
    both, losses = gradients(training, FORMS["single step"])
    assert {name.split(".")[0] for name in both} == {"depth", "canny"}
    assert losses.keys() == {"loss", "depth_maps", "canny_maps"}
    assert float(losses["loss"]) == pytest.approx(float(losses["depth_maps"] + losses["canny_maps"]))
