# torch declares the children of a module as tensors or modules.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
"""The training form and the inference form agree on a UNet in the shape of Stable Diffusion 2's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tests.support.tiny import add_random_adapter, tiny_unet
from unicon.adapters.config import AdapterConfig
from unicon.adapters.merge import merge_adapters
from unicon.adapters.unet import adapter_configs, adapter_parameters, add_adapter, named_adapter_parameters
from unicon.pairs import Pair, Pairs

DEPTH = AdapterConfig(name="depth", rank=4)
IDENTITY = AdapterConfig(name="id", rank=3, alpha=6, projection="separate", condition_adapter=False)
PAIR = Pairs.one_to_one(1, "depth")


def inputs(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(rows, 4, 8, 12, generator=generator)
    return latents, torch.arange(rows) * 90 + 7, torch.randn(rows, 5, 24, generator=generator)


def predict(unet: UNet2DConditionModel, pairs: Pairs | None, rows: int) -> Tensor:
    return unet(*inputs(rows), cross_attention_kwargs=None if pairs is None else {"pairs": pairs}).sample


def depth_unet() -> UNet2DConditionModel:
    unet = tiny_unet()
    add_random_adapter(unet, DEPTH)
    return unet


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing() -> None:
    unet = tiny_unet()
    before = predict(unet, None, 2)
    add_adapter(unet, DEPTH)
    assert torch.equal(predict(unet, PAIR, 2), before)


@torch.no_grad()
@pytest.mark.parametrize("use_linear_projection", [True, False])
def test_without_pairs_the_model_is_the_frozen_one(use_linear_projection: bool) -> None:
    unet = tiny_unet(use_linear_projection=use_linear_projection)
    before = predict(unet, None, 2)
    add_random_adapter(unet, DEPTH)
    assert torch.equal(predict(unet, None, 2), before)
    assert not torch.allclose(predict(unet, PAIR, 2), before, atol=1e-3)
    assert torch.allclose(predict(merge_adapters(unet), None, 2), before, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    "pairs",
    [
        Pairs.one_to_one(2, "depth"),
        Pairs.one_to_one(2, "depth", weight_to_image=0.3, weight_to_condition=0.0),
        Pairs((Pair(0, 1, "depth"), Pair(2, 3, "id", 0.5)), 4),
        Pairs((Pair(0, 2, "id"), Pair(0, 1, "depth"), Pair(3, 1, "depth", 0.5, 0.25)), 4),
        Pairs((Pair(3, 2, "depth"), Pair(1, 0, "depth")), 4).repeat(2),
        Pairs((Pair(0, 1, "depth"), Pair(0, 2, "depth")), 4),
        Pairs.one_to_one(2, "depth").without_joint(),
    ],
)
def test_inference_form_equals_training_form(pairs: Pairs) -> None:
    unet = depth_unet()
    add_random_adapter(unet, IDENTITY, seed=2)
    expected = predict(unet, pairs, pairs.num_rows)
    assert torch.allclose(predict(merge_adapters(unet), pairs, pairs.num_rows), expected, atol=2e-5)


@torch.no_grad()
def test_rows_of_other_pairs_do_not_matter() -> None:
    unet = depth_unet()
    add_random_adapter(unet, IDENTITY, seed=2)
    both = predict(unet, Pairs((Pair(0, 1, "depth"), Pair(2, 3, "id")), 4), 4)
    first = predict(unet, Pairs((Pair(0, 1, "depth"),), 4), 4)
    assert torch.allclose(both[:2], first[:2], atol=1e-5)
    assert not torch.allclose(both[2:], first[2:], atol=1e-3)


def test_wrong_pairs_are_refused() -> None:
    unet = depth_unet()
    for model in (unet, merge_adapters(unet)):
        with pytest.raises(ValueError, match="'pose' is not one of \\['depth'\\]"):
            predict(model, Pairs.one_to_one(1, "pose"), 2)
        with pytest.raises(ValueError, match="have 2 rows and the batch has 4"):
            predict(model, PAIR, 4)


def test_parameters() -> None:
    unet = tiny_unet().requires_grad_(False)
    frozen = sum(parameter.numel() for parameter in unet.parameters())
    add_adapter(unet, DEPTH)
    add_adapter(unet, IDENTITY)
    own = [*adapter_parameters(unet, "depth"), *adapter_parameters(unet, "id")]
    trainable = {id(parameter) for parameter in unet.parameters() if parameter.requires_grad}
    assert trainable == {id(parameter) for parameter in own}
    total = sum(parameter.numel() for parameter in unet.parameters())
    assert total == frozen + sum(parameter.numel() for parameter in own)  # no frozen weight is kept twice
    assert list(adapter_configs(unet)) == ["depth", "id"]


def test_adding_keeps_the_flags_of_other_parameters() -> None:
    unet = tiny_unet()
    unet.conv_in.requires_grad_(False)
    add_adapter(unet, DEPTH)
    assert not unet.conv_in.weight.requires_grad
    assert unet.conv_out.weight.requires_grad
    assert unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.base_layer.weight.requires_grad


def test_initialization_depends_on_the_seed_alone() -> None:
    first, second, third = tiny_unet(), tiny_unet(), tiny_unet()
    before = torch.random.get_rng_state()
    add_adapter(first, DEPTH, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    add_adapter(second, DEPTH, seed=3)
    add_adapter(third, DEPTH, seed=4)
    downs = [named_adapter_parameters(unet, "depth") for unet in (first, second, third)]
    key = next(key for key in downs[0] if "lora_A" in key)
    assert torch.equal(downs[0][key], downs[1][key])
    assert not torch.equal(downs[0][key], downs[2][key])
    assert all(value.count_nonzero() == 0 for key, value in downs[0].items() if "lora_A" not in key)


@torch.no_grad()
def test_pickle_and_deepcopy_are_independent() -> None:
    unet = depth_unet()
    expected = predict(unet, PAIR, 2)
    copies = [copy.deepcopy(unet), pickle.loads(pickle.dumps(unet)), merge_adapters(unet)]
    for parameter in unet.parameters():
        parameter.zero_()
    for other in copies:
        assert torch.allclose(predict(other, PAIR, 2), expected, atol=2e-5)
    merged = pickle.loads(pickle.dumps(copies[2]))
    assert torch.equal(predict(merged, PAIR, 2), predict(copies[2], PAIR, 2))


def test_merging_leaves_the_training_form_alone() -> None:
    unet = depth_unet()
    expected = predict(unet, PAIR, 2)
    state = {key: value.clone() for key, value in unet.state_dict().items()}
    merged = merge_adapters(unet)
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())
    assert torch.equal(predict(unet, PAIR, 2), expected)
    assert not any("lora" in key for key in merged.state_dict())
    assert not any(parameter.requires_grad for parameter in merged.parameters())


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    unet = depth_unet().train()
    parameters = adapter_parameters(unet, "depth")

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(predict(unet, PAIR, 2).square().mean(), parameters)

    plain = gradients()
    unet.enable_gradient_checkpointing()
    assert unet.is_gradient_checkpointing
    for with_checkpointing, without in zip(gradients(), plain, strict=True):
        assert torch.allclose(with_checkpointing, without, rtol=1e-5, atol=1e-8)
        assert without.abs().max() > 0


def test_other_unets_are_refused() -> None:
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        attention_head_dim=4, down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "SimpleCrossAttnUpBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )  # fmt: skip
    with pytest.raises(ValueError, match="Stable Diffusion 1.x or 2.x"):
        add_adapter(unet, DEPTH)


def test_names_are_unique_and_known() -> None:
    unet = depth_unet()
    with pytest.raises(ValueError, match="there already"):
        add_adapter(unet, DEPTH)
    with pytest.raises(ValueError, match="no attribute of torch modules; got 'keys'"):
        add_adapter(unet, AdapterConfig(name="keys"))
    with pytest.raises(ValueError, match="\\['depth'\\]; got 'edge'"):
        adapter_parameters(unet, "edge")
    with pytest.raises(ValueError, match="needs adapters"):
        merge_adapters(tiny_unet())


@pytest.mark.parametrize("options", [{"name": "a.b"}, {"name": "x", "rank": 0}, {"name": "x", "projection": "other"}])
def test_nonsense_configuration_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="got"):
        AdapterConfig(**options)


def test_configuration_defaults() -> None:
    assert (DEPTH.kind, DEPTH.alpha, DEPTH.trigger) == ("depth", 4.0, "depth_map, ")
    assert (IDENTITY.kind, IDENTITY.alpha, IDENTITY.trigger) == ("id", 6.0, "")
    assert AdapterConfig(**DEPTH.to_dict()) == DEPTH
