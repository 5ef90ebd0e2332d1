# diffusers declares the layers of its attention as optional, and torch the children of modules loosely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false, reportOptionalCall=false
# pyright: reportOptionalMemberAccess=false, reportOptionalOperand=false, reportOptionalSubscript=false
"""The inference form: the LoRAs are merged into one set of weights per role, so that only matrix products remain.

`merge_adapters` returns a new UNet whose results equal those of the training form up to rounding. The output projection
of the joint attention is merged with that of the attention module: joint_out(to_out(x)) is one linear map.

Shapes: B rows, N tokens, C channels, P pairs.

Tested in tests/unicon/adapters/test_unet.py and tests/unicon/test_loading.py.
"""

from __future__ import annotations

import copy

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from unicon.adapters.attention import base_linear
from unicon.adapters.config import AdapterConfig, lora_name
from unicon.adapters.merged import (
    JointOutput,
    MergedJointAttention,
    MergedTextAttention,
    Output,
    Projections,
    RoleWeights,
    joint_name,
)
from unicon.adapters.unet import PROJECTIONS, adapter_configs, transformer_blocks
from unicon.layout import QUERY_KEY_VALUE, Role


def merge_adapters(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a new UNet in inference form. The given UNet does not change.

    Merging is computed in float32 and stored in the dtype of the UNet. The new UNet has no trainable weights.

    Raises:
        ValueError: The UNet has no adapters.
    """
    _check_adapters(unet)
    return merge_in_place(copy.deepcopy(unet))


def merge_in_place(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Turn the UNet itself into inference form, block by block, so that memory never holds it twice.

    The LoRAs are removed, and with them the base weights that are no longer used: self-attention has merged weights for
    every role.

    Raises:
        ValueError: The UNet has no adapters. It is then unchanged.
    """
    configs = _check_adapters(unet)
    unet.requires_grad_(False)
    blocks = [block for _, block in transformer_blocks(unet)]
    for at, block in enumerate(blocks):
        joint = _merge_joint(block.attn1, configs, block=at, num_blocks=len(blocks))
        text = _merge_text(block.attn2, configs)
        block.attn1.set_processor(joint)  # type: ignore[arg-type]
        block.attn2.set_processor(text)  # type: ignore[arg-type]
        for layer in PROJECTIONS:
            block.attn1.set_submodule(layer, nn.Identity())
            block.attn2.set_submodule(layer, base_linear(block.attn2.get_submodule(layer)))
    unet.unload_lora()
    return unet.eval()


def _check_adapters(unet: UNet2DConditionModel) -> dict[str, AdapterConfig]:
    configs = adapter_configs(unet)
    if not configs:
        raise ValueError("Merging needs adapters; this UNet has none. Use it as it is, or load an adapter first.")
    return configs


def _merged_weight(layer: nn.Module, name: str | None) -> Tensor:
    """W + scaling * B A in float32."""
    weight = base_linear(layer).weight.detach().float()
    if name is None:
        return weight
    up, down = layer.lora_B[name].weight.detach().float(), layer.lora_A[name].weight.detach().float()
    return weight + layer.scaling[name] * (up @ down)


def _merge_text(attn: Attention, configs: dict[str, AdapterConfig]) -> MergedTextAttention:
    text = MergedTextAttention()
    out = base_linear(attn.to_out[0])
    for config in configs.values():
        if config.condition_adapter:
            name = lora_name(config.name, "condition_adapter")
            key_value = torch.cat([_merged_weight(layer, name) for layer in (attn.to_k, attn.to_v)])
            weights = (_merged_weight(attn.to_q, name), key_value, _merged_weight(attn.to_out[0], name))
            text.conditions[config.name] = RoleWeights(*(w.to(out.weight.dtype) for w in weights), _copy(out.bias))
    return text


def _merge_joint(
    attn: Attention, configs: dict[str, AdapterConfig], *, block: int, num_blocks: int
) -> MergedJointAttention:
    plain = _projections(attn, None)
    for config in configs.values():
        plain |= _projections(attn, lora_name(config.name, "image"), config.name)
    merged = MergedJointAttention(Projections(plain), _output(attn, None), block=block, num_blocks=num_blocks)
    merged.configs = dict(configs)
    for name, config in configs.items():
        joint = _projections(attn, lora_name(name, "condition"), name)
        if config.condition_adapter:
            joint = _projections(attn, lora_name(name, "condition_adapter")) | joint
            merged.condition_outs[name] = _output(attn, lora_name(name, "condition_adapter"))
        merged.conditions[name] = Projections(joint)
        merged.joint_outs[name] = _joint_output(attn, config)
    return merged


def _projections(attn: Attention, lora: str | None, adapter: str | None = None) -> dict[str, Tensor]:
    """Weights by name, see `Projections`: of self-attention, or of the joint attention of an adapter."""
    layers = dict(zip(QUERY_KEY_VALUE, (attn.to_q, attn.to_k, attn.to_v), strict=True))
    return {
        part if adapter is None else joint_name(adapter, part): _merged_weight(layer, lora).to(attn.to_q.weight.dtype)
        for part, layer in layers.items()
    }


def _output(attn: Attention, lora: str | None) -> Output:
    out = base_linear(attn.to_out[0])
    return Output(_merged_weight(attn.to_out[0], lora).to(out.weight.dtype), _copy(out.bias))


def _joint_output(attn: Attention, config: AdapterConfig) -> JointOutput:
    bias = base_linear(attn.to_out[0]).bias
    dtype = attn.to_q.weight.dtype
    roles: tuple[Role, Role] = ("image", "condition")
    outs = {role: _merged_weight(attn.to_out[0], lora_name(config.name, role)) for role in roles}
    projection = attn.processor.joint_out[config.name].linear.weight.detach().float()
    if config.projection == "separate":
        weights = {role: [projection @ outs[role]] for role in roles}
        products = dict.fromkeys(roles, projection)
    else:
        halves = {role: dict(zip(roles, half.chunk(2, dim=1), strict=True))
                  for role, half in zip(roles, projection.chunk(2), strict=True)}  # fmt: skip
        weights = {
            role: [halves[role][role] @ outs[role], halves[role][other] @ outs[other]]
            for role, other in zip(roles, reversed(roles), strict=True)
        }
        products = {role: halves[role]["image"] + halves[role]["condition"] for role in roles}
    return JointOutput(
        config.projection,
        {role: [weight.to(dtype) for weight in each] for role, each in weights.items()},
        {role: None if bias is None else (products[role] @ bias.detach().float()).to(dtype) for role in roles},
    )  # fmt: skip


def _copy(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().clone()
