# diffusers declares the layers of its attention as optional, and torch the children of modules loosely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false, reportOptionalCall=false, reportOptionalSubscript=false
"""The modules of the inference form: the weights of every role, and attention processors that use them.

Rows that need the same projections form a run (`unicon.layout.Run`). One matrix product yields all projections of a
run whose weights are adjacent: query, key and value of self-attention, then those of the joint attention.

Shapes: B rows, N tokens, M text tokens, C channels, P pairs.

Tested in tests/unicon/adapters/test_unet.py, tests/unicon/test_golden.py and tests/unicon/test_one_way.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import linear

from unicon.adapters.attention import attend, layout_of
from unicon.adapters.config import AdapterConfig, Projection
from unicon.layout import QUERY_KEY_VALUE, JointGroup, Layout, Part, Role, Rows, Run
from unicon.pairs import Pairs
from unicon.unet_call import complete


def is_merged(unet: UNet2DConditionModel) -> bool:
    """Whether a UNet is in inference form, which can keep features of rows."""
    return any(isinstance(module, MergedJointAttention) for module in unet.modules())


Projected = dict[str, Tensor]
"""Name of a projection -> (rows of a run, N, C)."""


def joint_name(adapter: str, part: Part) -> str:
    """Name of a projection of the joint attention in `Projections`; those of self-attention are named by their part."""
    return f"{adapter}.{part}"


class Projections(nn.Module):
    """Weights (C, C) of several projections of the same inputs, stacked in the order of their names."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = list(weights)
        self.register_buffer("weight", torch.cat(list(weights.values())))

    def forward(self, inputs: Tensor, names: Sequence[str]) -> Projected:
        """Project (B, N, C) by the weights of some names. Adjacent ones are one product."""
        width = len(self.weight) // len(self.names)
        found: Projected = {}
        for first, last in _runs(sorted(self.names.index(name) for name in names)):
            product = linear(inputs, self.weight[first * width : (last + 1) * width])
            found |= zip(self.names[first : last + 1], product.chunk(last + 1 - first, dim=-1), strict=True)
        return found


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of every run of successive numbers."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place - 1:
            runs[-1] = (runs[-1][0], place)
        else:
            runs.append((place, place))
    return runs


class Output(nn.Module):
    """An output projection: weight (C, C) and bias (C,), or no bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, attended: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return linear(attended, self.weight, self.bias)


class JointOutput(nn.Module):
    """The output projections of the joint attention of one adapter to each role.

    The output to a role is a product of that role's attention to the other ("own"), and if the projection is fused,
    also of the other role's attention to it ("other").
    """

    def __init__(
        self, projection: Projection, weights: Mapping[Role, Sequence[Tensor]], biases: Mapping[Role, Tensor | None]
    ) -> None:
        super().__init__()
        self.projection: Projection = projection
        for role, (own, *other) in weights.items():
            self.register_buffer(f"{role}_own", own)
            self.register_buffer(f"{role}_other", other[0] if other else None)
            self.register_buffer(f"{role}_bias", biases[role])

    def forward(self, role: Role, own: Tensor, other: Tensor | None) -> Tensor:
        """The output to a role, (P, N, C); `other` is None unless the projection is fused."""
        output = linear(own, getattr(self, f"{role}_own"), getattr(self, f"{role}_bias"))
        if other is None:
            return output
        product = torch.addmm(output.flatten(0, 1), other.flatten(0, 1), getattr(self, f"{role}_other").t())
        return product.unflatten(0, output.shape[:2])


class RoleWeights(nn.Module):
    """Merged weights of text cross-attention for one role: query (C, C), stacked key and value, output with bias."""

    def __init__(self, query: Tensor, key_value: Tensor, out: Tensor, out_bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("query", query)
        self.register_buffer("key_value", key_value)
        self.out = Output(out, out_bias)

    def forward(self, heads: int, inputs: Tensor, context: Tensor) -> Tensor:
        """(B, N, C), (B, M, text C) -> (B, N, C)."""
        key, value = linear(context, self.key_value).chunk(2, dim=-1)
        return self.out(attend(heads, linear(inputs, self.query), key, value))


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
        features: dict[int, tuple[Tensor, ...]] | None = None,
    ) -> Tensor:
        """Attend to the text: (B, N, C), (B, M, text C) -> (B, N, C). Features are for joint attention alone."""
        layout = layout_of(len(hidden_states), pairs, None, attention_mask)
        assert encoder_hidden_states is not None
        if not any(adapter in self.conditions for adapter in layout.condition_adapters):
            return self._plain(attn, hidden_states, encoder_hidden_states)
        return _joined([
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
    """Self-attention plus the joint cross-attention of every pair, with merged weights.

    `plain` and `plain_out` are the weights of rows without a condition adapter, and `plain` also holds the joint
    projections of image rows. `conditions` and `condition_outs` are those of the condition rows of each adapter.
    """

    def __init__(self, plain: Projections, plain_out: Output, *, block: int, num_blocks: int) -> None:
        super().__init__()
        self.plain, self.plain_out = plain, plain_out
        self.conditions = nn.ModuleDict()
        self.condition_outs = nn.ModuleDict()
        self.joint_outs = nn.ModuleDict()
        self.configs: dict[str, AdapterConfig] = {}
        self.block, self.num_blocks = block, num_blocks

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        pairs: Pairs | Layout | None = None,
        features: dict[int, tuple[Tensor, ...]] | None = None,
    ) -> Tensor:
        """Self-attention and joint attention: (B, N, C) -> (B, N, C). See `unicon.unet_call` for the features."""
        layout = layout_of(len(hidden_states), pairs, self.joint_outs, attention_mask)
        if features is not None and layout.sources and len(features) == self.num_blocks - 1:
            projected = [self._project(run, hidden_states[run.rows], ()) for run in layout.runs]
            self._keep(layout, projected, features)
            return hidden_states
        projected = [self._project(run, hidden_states[run.rows], QUERY_KEY_VALUE) for run in layout.runs]
        if features is not None and layout.sources:
            self._keep(layout, projected, features)
        outputs = [self._self_attention(attn.heads, *each) for each in zip(layout.runs, projected, strict=True)]
        output = _joined(outputs)
        for group in layout.joint_groups:
            self._add_joint(attn.heads, output, layout, projected, group)
        if features is not None and layout.one_way_groups:
            self._add_one_way(attn.heads, output, layout, projected, features[self.block])
        return output

    def _project(self, run: Run, inputs: Tensor, own: Sequence[Part]) -> Projected:
        """The projections of self-attention in `own` and those that joint attention needs, in few products."""
        joint = [joint_name(adapter, part) for adapter, part in run.joint]
        if run.adapter is None:
            return self.plain(inputs, [*own, *joint])
        weights = self.conditions[run.adapter]
        if run.adapter in self.condition_outs:
            return weights(inputs, [*own, *joint])
        return self.plain(inputs, own) | weights(inputs, joint)

    def _self_attention(self, heads: int, run: Run, projected: Projected) -> Tensor:
        has_own = run.adapter is not None and run.adapter in self.condition_outs
        out = self.condition_outs[run.adapter] if has_own else self.plain_out
        return out(attend(heads, *(projected[part] for part in QUERY_KEY_VALUE)))

    def _keep(self, layout: Layout, projected: list[Projected], features: dict[int, tuple[Tensor, ...]]) -> None:
        features[self.block] = tuple(
            _pick(layout, projected, source.rows, joint_name(source.adapter, part))
            for source in layout.sources
            for part in source.parts
        )
        complete(features, self.num_blocks)

    def _add_joint(
        self, heads: int, output: Tensor, layout: Layout, projected: list[Projected], group: JointGroup
    ) -> None:
        image, condition = (
            {part: _pick(layout, projected, rows, joint_name(group.adapter, part)) for part in QUERY_KEY_VALUE}
            for rows in (group.image_rows, group.condition_rows)
        )
        to_image = attend(heads, image["query"], condition["key"], condition["value"])
        to_condition = attend(heads, condition["query"], image["key"], image["value"])
        out = self.joint_outs[group.adapter]
        mixes = out.projection == "fused"
        joint = out("image", to_image, to_condition if mixes else None)
        group.image_rows.add_(output, group.weights_to_image.weigh(joint))
        joint = out("condition", to_condition, to_image if mixes else None)
        group.condition_rows.add_(output, group.weights_to_condition.weigh(joint))

    def _add_one_way(
        self, heads: int, output: Tensor, layout: Layout, projected: list[Projected], kept: tuple[Tensor, ...]
    ) -> None:
        tensors = iter(kept)
        for group in layout.one_way_groups:
            static = {part: next(tensors) for part in group.parts}
            moving = {part: _pick(layout, projected, group.rows, joint_name(group.adapter, part))
                      for part in group.own_parts}  # fmt: skip
            own = attend(heads, moving["query"], static["key"], static["value"])
            mixes = "query" in static
            other = attend(heads, static["query"], moving["key"], moving["value"]) if mixes else None
            joint = self.joint_outs[group.adapter](group.role, own, other)
            group.rows.add_(output, group.weights.weigh(joint))


def _pick(layout: Layout, projected: list[Projected], rows: Rows, name: str) -> Tensor:
    """One projection of some rows; adjacent rows of one run are a view."""
    return _joined([projected[run][name][where] for run, where in layout.pieces[rows]])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
