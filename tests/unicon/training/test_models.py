"""Calls of the UNet in training: what they return, and that compiling them changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tests.support.tiny import DEPTH, add_random_adapter, tiny_unet, write_tiny_model
from unicon.adapters.unet import adapter_parameters
from unicon.layout import Layout
from unicon.pairs import Pair, Pairs
from unicon.training.mini.models import read_models
from unicon.training.models import UNetCall, normal_noise
from unicon.training.pair_layout import PairLayouts

LATENTS = torch.randn((4, 4, 16, 16), generator=torch.Generator().manual_seed(0))
TIMESTEPS, EMBEDS = torch.tensor([0, 3, 900, 999]), torch.full((4, 12, 24), 0.1)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.set_num_threads(1)
    unet = tiny_unet().requires_grad_(False)
    add_random_adapter(unet, DEPTH)
    for parameter in adapter_parameters(unet, "depth"):
        parameter.requires_grad_(True)
    return unet


def gradients(call: UNetCall, unet: UNet2DConditionModel, layout: Layout) -> tuple[Tensor, ...]:
    output = call(LATENTS, TIMESTEPS, EMBEDS, layout, attended=True)
    assert len(output.attention_inputs) == 7
    loss = output.prediction.square().mean() + output.features.square().mean()
    return (output.prediction, *torch.autograd.grad(loss, adapter_parameters(unet, "depth"), allow_unused=True))


def test_weights_in_a_tensor_are_those_of_pairs(unet: UNet2DConditionModel) -> None:
    """One layout serves steps with different weights. A pair with weight 0 is not joined."""
    call, layouts = UNetCall(unet), PairLayouts("depth", torch.device("cpu"))
    layout = layouts.layout(torch.ones(2))
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        assert layouts.layout(torch.tensor(weights)) is layout
        pairs = Pairs(tuple(Pair(row, 2 + row, "depth", weight, weight) for row, weight in enumerate(weights)), 4)
        with torch.no_grad():
            found = call(LATENTS, TIMESTEPS, EMBEDS, layout).prediction
            expected = unet(LATENTS, TIMESTEPS, EMBEDS, cross_attention_kwargs={"pairs": pairs}).sample
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_call_computes_the_same_without_compiling_again(unet: UNet2DConditionModel) -> None:
    layouts, plain = PairLayouts("depth", torch.device("cpu")), UNetCall(unet)
    steps = [torch.tensor(weights) for weights in ((1.0, 0.0), (1.0, 1.0))]
    expected = [gradients(plain, unet, layouts.layout(weights)) for weights in steps]
    torch._dynamo.utils.counters.clear()
    compiled = UNetCall(unet, compiles=True, backend="aot_eager")
    for weights, tensors in zip(steps, expected, strict=True):
        found = gradients(compiled, unet, layouts.layout(weights))
        assert all(torch.allclose(*both, atol=1e-6) for both in zip(found, tensors, strict=True) if both[0] is not None)
    assert compiled.compiles
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    compiled.close()


@pytest.mark.slow
def test_a_call_that_cannot_be_compiled_runs_as_it_is(
    unet: UNet2DConditionModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> None:
        raise RuntimeError("no compiler here")

    layout = Pairs.one_to_one(2, "depth").layout
    call = UNetCall(unet, compiles=True, backend=broken)
    expected = gradients(UNetCall(unet), unet, layout)[0]
    for _ in range(2):
        assert torch.equal(gradients(call, unet, layout)[0], expected)
    said = capsys.readouterr().err
    assert said.count("the UNet is not compiled") == 1 and "no compiler here" in said


def test_prompts_are_encoded_alike_in_every_step(tmp_path: Path) -> None:
    models = read_models(write_tiny_model(tmp_path))
    with torch.no_grad():
        first = models.encode_prompts(["", "a cat", ""])
        again = models.encode_prompts(["a cat", "a dog"])
    assert torch.equal(first[0], first[2]) and not torch.allclose(first[0], first[1])
    assert torch.allclose(again[0], first[1], atol=1e-6)


def test_noise_of_a_step_comes_from_its_generator() -> None:
    one, other = (normal_noise((2, 3), torch.Generator().manual_seed(1), torch.device("cpu")) for _ in range(2))
    assert torch.equal(one, other)
