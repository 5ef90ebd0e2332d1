# diffusers declares the layers of its attention as optional, and torch the attributes of modules loosely.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalSubscript=false
"""Joint cross-attention as diffusers attention processors: the training form.

Each attention module has its own processor: `JointAttention` for self-attention (`attn1`), `TextAttention` for text
cross-attention (`attn2`). Both receive the pairs of the batch through `cross_attention_kwargs={"pairs": pairs}`;
without pairs they compute the frozen model. The LoRA weights are held by peft in the projections of the attention
module. Which LoRA acts on which rows is decided here from the pairs, never by peft's active adapter. The base
projections are computed once for all rows and shared by self-attention and joint attention.

Shapes: B rows, N tokens, C channels, H heads, D channels per head, P pairs.

Source: arXiv 2410.11439, section 3 (joint cross-attention, condition adapter).
Tested in tests/unicon/adapters/test_unet.py and tests/unicon/test_golden.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers.models.attention_processor import Attention
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from unicon.adapters.config import Projection, lora_name
from unicon.layout import JointGroup, Layout, Rows
from unicon.pairs import Pairs

if TYPE_CHECKING:
    from unicon.adapters.config import AdapterConfig


QKV = tuple[Tensor, Tensor, Tensor]


def base_linear(layer: nn.Module) -> nn.Linear:
    """The frozen linear layer of a layer that may be wrapped by a LoRA."""
    return layer.get_base_layer() if isinstance(layer, LoraLinear) else layer  # type: ignore[return-value]


def lora_delta(layer: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """The contribution of one LoRA to the layer's output, scaling * B A x, in the dtype of x."""
    assert isinstance(layer, LoraLinear)
    down, up = layer.lora_A[name], layer.lora_B[name]
    return (up(down(inputs.to(down.weight.dtype))) * layer.scaling[name]).to(inputs.dtype)


def attend(heads: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Multi-head attention: (B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def layout_of(
    num_rows: int, pairs: Pairs | Layout | None, adapters: nn.ModuleDict | dict | set | None, mask: Tensor | None
) -> Layout:
    """The layout of a call; without pairs, that of image rows alone.

    Raises:
        ValueError: The pairs do not fit the batch or name an absent adapter, or there is an attention mask.
    """
    if mask is not None:
        raise ValueError("UniCon attention takes no attention mask; one was given. Call the UNet without a mask.")
    if pairs is None:
        return Layout((None,) * num_rows)
    if pairs.num_rows != num_rows:
        raise ValueError(
            f"Pairs describe every row of the batch; they have {pairs.num_rows} rows and the batch has {num_rows}. "
            "Use pairs.repeat(2) for classifier-free guidance."
        )
    for adapter in pairs.adapters if adapters is not None else ():
        if adapter not in adapters:  # type: ignore[operator]
            raise ValueError(
                f"Pairs name adapters of the UNet; {adapter!r} is not one of {sorted(adapters)}. "  # type: ignore
                "Load it first, or correct the name."
            )
    return pairs.layout if isinstance(pairs, Pairs) else pairs


class JointOut(nn.Module):
    """Zero-initialized output projection without bias of the joint attention of one adapter in one block.

    A "fused" projection is a Linear(2C, 2C) on [image output ; condition output] along the channels, split afterwards.
    A "separate" projection is one Linear(C, C) for both.
    """

    def __init__(self, channels: int, projection: Projection) -> None:
        super().__init__()
        self.projection = projection
        width = 2 * channels if projection == "fused" else channels
        self.linear = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Project image and condition outputs: (P, N, C), (P, N, C) -> (P, N, C), (P, N, C)."""
        if self.projection == "separate":
            return self.linear(image), self.linear(condition)
        image, condition = self.linear(torch.cat([image, condition], dim=-1)).chunk(2, dim=-1)
        return image, condition


class TextAttention(nn.Module):
    """Text cross-attention whose condition rows carry the LoRA of their condition adapter.

    Holds no weights; `condition_adapters` names the adapters that have a condition adapter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.condition_adapters: set[str] = set()

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
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        groups = self.condition_rows(layout)
        query, key, value = add_condition_adapters(
            attn, base_qkv(attn, hidden_states, context), hidden_states, context, groups
        )
        return project_out(attn, attend(attn.heads, query, key, value), groups)

    def condition_rows(self, layout: Layout) -> list[tuple[str, Rows]]:
        """(LoRA name, rows) for every adapter of the batch that has a condition adapter."""
        return [
            (lora_name(adapter, "condition_adapter"), rows)
            for adapter, rows in layout.condition_groups
            if adapter in self.condition_adapters
        ]


class JointAttention(TextAttention):
    """Self-attention, plus joint cross-attention between the image row and the condition row of every pair."""

    def __init__(self) -> None:
        super().__init__()
        self.joint_out = nn.ModuleDict()
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
        layout = layout_of(len(hidden_states), pairs, self.joint_out, attention_mask)
        groups = self.condition_rows(layout)
        base = base_qkv(attn, hidden_states, hidden_states)
        query, key, value = add_condition_adapters(attn, base, hidden_states, hidden_states, groups)
        output = project_out(attn, attend(attn.heads, query, key, value), groups)
        for group in layout.joint_groups:
            output = self._add_joint(attn, output, base, hidden_states, group)
        return output

    def _add_joint(self, attn: Attention, output: Tensor, base: QKV, hidden_states: Tensor, group: JointGroup):
        image_lora, condition_lora = lora_name(group.adapter, "image"), lora_name(group.adapter, "condition")
        image_query, image_key, image_value = role_qkv(attn, base, hidden_states, group.image_rows, image_lora)
        query, key, value = role_qkv(attn, base, hidden_states, group.condition_rows, condition_lora)
        image = role_out(attn, attend(attn.heads, image_query, key, value), image_lora)
        condition = role_out(attn, attend(attn.heads, query, image_key, image_value), condition_lora)
        image, condition = self.joint_out[group.adapter](image, condition)
        output = group.image_rows.add(output, group.weights_to_image.weigh(image))
        return group.condition_rows.add(output, group.weights_to_condition.weigh(condition))


def base_qkv(attn: Attention, inputs: Tensor, context: Tensor) -> QKV:
    """Query, key and value of the frozen model, (B, N or M, C) each."""
    return base_linear(attn.to_q)(inputs), base_linear(attn.to_k)(context), base_linear(attn.to_v)(context)


def add_condition_adapters(
    attn: Attention, base: QKV, inputs: Tensor, context: Tensor, groups: list[tuple[str, Rows]]
) -> QKV:
    """The base projections, with the LoRA of its condition adapter added to every condition row."""
    query, key, value = base
    for name, rows in groups:
        row_inputs, row_context = rows.take(inputs), rows.take(context)
        query = rows.add(query, lora_delta(attn.to_q, name, row_inputs))
        key = rows.add(key, lora_delta(attn.to_k, name, row_context))
        value = rows.add(value, lora_delta(attn.to_v, name, row_context))
    return query, key, value


def project_out(attn: Attention, attended: Tensor, groups: list[tuple[str, Rows]]) -> Tensor:
    """Output projection (B, N, C) -> (B, N, C). Condition rows have the LoRA of their condition adapter."""
    output = base_linear(attn.to_out[0])(attended)
    for name, rows in groups:
        output = rows.add(output, lora_delta(attn.to_out[0], name, rows.take(attended)))
    return attn.to_out[1](output)


def role_qkv(attn: Attention, base: QKV, inputs: Tensor, rows: Rows, name: str) -> QKV:
    """Query, key and value of some rows in the joint attention, (P, N, C) each: base plus the LoRA of their role."""
    row_inputs = rows.take(inputs)
    query, key, value = (
        rows.take(projected) + lora_delta(layer, name, row_inputs)
        for projected, layer in zip(base, (attn.to_q, attn.to_k, attn.to_v), strict=True)
    )
    return query, key, value


def role_out(attn: Attention, attended: Tensor, name: str) -> Tensor:
    """Output projection of the joint attention with the LoRA of the role, (P, N, C) -> (P, N, C)."""
    return base_linear(attn.to_out[0])(attended) + lora_delta(attn.to_out[0], name, attended)
