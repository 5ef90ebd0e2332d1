# diffusers declares the layers of its attention as optional, and torch the children of modules loosely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false, reportOptionalCall=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
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
from torch.nn.functional import linear

from unicon.adapters.attention import JointAttention, attend, base_linear, layout_of
from unicon.adapters.config import AdapterConfig, LoraKind, lora_name
from unicon.adapters.unet import PROJECTIONS, adapter_configs, transformer_blocks
from unicon.layout import JointGroup, Layout
from unicon.pairs import Pairs


class RoleWeights(nn.Module):
    """Merged weights of one attention for one role: query (C, C), stacked key and value, output (C, C) with bias."""

    def __init__(self, query: Tensor, key_value: Tensor, out: Tensor, out_bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("query", query)
        self.register_buffer("key_value", key_value)
        self.register_buffer("out", out)
        self.register_buffer("out_bias", out_bias)

    def forward(self, heads: int, inputs: Tensor, context: Tensor) -> Tensor:
        """Text cross-attention: (B, N, C), (B, M, text C) -> (B, N, C)."""
        key, value = linear(context, self.key_value).chunk(2, dim=-1)
        return linear(attend(heads, linear(inputs, self.query), key, value), self.out, self.out_bias)


class RoleSelfWeights(nn.Module):
    """Merged weights of self-attention for one role, with query, key and value stacked: (3C, C)."""

    def __init__(self, qkv: Tensor, out: Tensor, out_bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("qkv", qkv)
        self.register_buffer("out", out)
        self.register_buffer("out_bias", out_bias)

    def forward(self, heads: int, inputs: Tensor) -> Tensor:
        """Self-attention: (B, N, C) -> (B, N, C)."""
        query, key, value = linear(inputs, self.qkv).chunk(3, dim=-1)
        return linear(attend(heads, query, key, value), self.out, self.out_bias)


class JointWeights(nn.Module):
    """Merged weights of the joint attention of one adapter: stacked projections for each role, and the output map."""

    def __init__(
        self, image_qkv: Tensor, condition_qkv: Tensor, outs: tuple[Tensor, ...], out_biases: tuple[Tensor | None, ...]
    ) -> None:
        super().__init__()
        self.register_buffer("image_qkv", image_qkv)
        self.register_buffer("condition_qkv", condition_qkv)
        self.fused = len(outs) == 1
        self.outs = nn.ParameterList(nn.Parameter(out, requires_grad=False) for out in outs)
        for index, bias in enumerate(out_biases):
            self.register_buffer(f"out_bias_{index}", bias)

    def forward(self, heads: int, images: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """(P, N, C), (P, N, C) -> joint output of the image rows and of the condition rows."""
        image_query, image_key, image_value = linear(images, self.image_qkv).chunk(3, dim=-1)
        query, key, value = linear(conditions, self.condition_qkv).chunk(3, dim=-1)
        image = attend(heads, image_query, key, value)
        condition = attend(heads, query, image_key, image_value)
        if self.fused:
            joint = linear(torch.cat([image, condition], dim=-1), self.outs[0], self.out_bias_0)
            image, condition = joint.chunk(2, dim=-1)
            return image, condition
        return (
            linear(image, self.outs[0], self.out_bias_0),
            linear(condition, self.outs[1], self.out_bias_1),
        )


class MergedTextAttention(nn.Module):
    """Text cross-attention with merged weights for the condition rows of every adapter that has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conditions = nn.ModuleDict()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        pairs: Pairs | Layout | None = None,
    ) -> Tensor:
        """Attend to the text: (B, N, C), (B, M, text C) -> (B, N, C)."""
        layout = layout_of(len(hidden_states), pairs, None, attention_mask)
        assert encoder_hidden_states is not None
        if not any(adapter in self.conditions for adapter in layout.adapters):
            return self._plain(attn, hidden_states, encoder_hidden_states)
        return torch.cat([
            self.conditions[segment.adapter](
                attn.heads, hidden_states[segment.rows], encoder_hidden_states[segment.rows])
            if segment.adapter in self.conditions
            else self._plain(attn, hidden_states[segment.rows], encoder_hidden_states[segment.rows])
            for segment in layout.segments
        ])  # fmt: skip

    @staticmethod
    def _plain(attn: Attention, inputs: Tensor, context: Tensor) -> Tensor:
        return attn.to_out[0](attend(attn.heads, attn.to_q(inputs), attn.to_k(context), attn.to_v(context)))


class MergedJointAttention(nn.Module):
    """Self-attention plus the joint cross-attention of every pair, with merged weights."""

    def __init__(self, plain: RoleSelfWeights) -> None:
        super().__init__()
        self.plain = plain
        self.conditions = nn.ModuleDict()
        self.joints = nn.ModuleDict()
        self.configs: dict[str, AdapterConfig] = {}

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        pairs: Pairs | Layout | None = None,
    ) -> Tensor:
        """Self-attention and joint attention: (B, N, C) -> (B, N, C)."""
        layout = layout_of(len(hidden_states), pairs, self.joints, attention_mask)
        if not any(adapter in self.conditions for adapter in layout.adapters):
            output = self.plain(attn.heads, hidden_states)
        else:
            output = torch.cat([
                self._role(segment.adapter)(attn.heads, hidden_states[segment.rows]) for segment in layout.segments
            ])  # fmt: skip
        for group in layout.joint_groups:
            self._add_joint(attn.heads, output, hidden_states, group)
        return output

    def _role(self, adapter: str | None) -> RoleSelfWeights:
        weights = self.conditions[adapter] if adapter is not None and adapter in self.conditions else self.plain
        return weights  # type: ignore[return-value]

    def _add_joint(self, heads: int, output: Tensor, hidden_states: Tensor, group: JointGroup) -> None:
        image, condition = self.joints[group.adapter](
            heads, group.image_rows.take(hidden_states), group.condition_rows.take(hidden_states)
        )
        group.image_rows.add_(output, group.weights_to_image.weigh(image))
        group.condition_rows.add_(output, group.weights_to_condition.weigh(condition))


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
    for _, block in transformer_blocks(unet):
        joint = _merge_joint(block.attn1, block.attn1.processor, configs)
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


def _stacked(attn: Attention, layers: tuple[str, ...], name: str | None) -> Tensor:
    return torch.cat([_merged_weight(getattr(attn, layer), name) for layer in layers])


def _merge_self(attn: Attention, adapter: str | None) -> RoleSelfWeights:
    name = lora_name(adapter, "condition_adapter") if adapter is not None else None
    out = base_linear(attn.to_out[0])
    dtype = out.weight.dtype
    qkv = _stacked(attn, ("to_q", "to_k", "to_v"), name).to(dtype)
    return RoleSelfWeights(qkv, _merged_weight(attn.to_out[0], name).to(dtype), _copy(out.bias))


def _merge_text(attn: Attention, configs: dict[str, AdapterConfig]) -> MergedTextAttention:
    text = MergedTextAttention()
    out = base_linear(attn.to_out[0])
    for config in configs.values():
        if config.condition_adapter:
            name = lora_name(config.name, "condition_adapter")
            weights = (
                _stacked(attn, ("to_q",), name),
                _stacked(attn, ("to_k", "to_v"), name),
                _merged_weight(attn.to_out[0], name),
            )
            text.conditions[config.name] = RoleWeights(*(w.to(out.weight.dtype) for w in weights), _copy(out.bias))
    return text


def _merge_joint(attn: Attention, joint: JointAttention, configs: dict[str, AdapterConfig]) -> MergedJointAttention:
    merged = MergedJointAttention(_merge_self(attn, None))
    merged.configs = dict(configs)
    for config in configs.values():
        if config.condition_adapter:
            merged.conditions[config.name] = _merge_self(attn, config.name)
        merged.joints[config.name] = _joint_weights(attn, joint, config)
    return merged


def _joint_weights(attn: Attention, joint: JointAttention, config: AdapterConfig) -> JointWeights:
    kinds: tuple[LoraKind, LoraKind] = ("image", "condition")
    image, condition = (lora_name(config.name, kind) for kind in kinds)
    out_bias = base_linear(attn.to_out[0]).bias
    dtype = attn.to_q.weight.dtype
    outs = [_merged_weight(attn.to_out[0], name) for name in (image, condition)]
    projection = joint.joint_out[config.name].linear.weight.detach().float()
    bias = None if out_bias is None else out_bias.detach().float()
    if config.projection == "fused":
        weights: tuple[Tensor, ...] = (projection @ torch.block_diag(*outs),)
        biases = (None if bias is None else projection @ torch.cat([bias, bias]),)
    else:
        weights = tuple(projection @ out for out in outs)
        biases = (None if bias is None else projection @ bias,) * 2
    return JointWeights(
        _stacked(attn, ("to_q", "to_k", "to_v"), image).to(dtype),
        _stacked(attn, ("to_q", "to_k", "to_v"), condition).to(dtype),
        tuple(weight.to(dtype) for weight in weights),
        tuple(None if bias is None else bias.to(dtype) for bias in biases),
    )


def _copy(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().clone()
