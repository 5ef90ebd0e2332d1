# diffusers declares the layers of its attention as optional.
# pyright: reportArgumentType=false
"""A loss that teaches joint attention to attend to corresponding positions of an image and its condition.

The features of a pretrained UNet encode their position; those of an untrained one do not, and joint attention learns
positions only slowly. With this loss, some heads learn to attend to the position of the query itself.

Shapes: B pairs, N tokens, C channels, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn.functional import cross_entropy

from unicon.adapters.attention import base_qkv, lora_delta
from unicon.adapters.config import LoraKind, lora_name

AttentionInput = tuple[Attention, Tensor]
"""A self-attention module and its input tokens (2B, N, C)."""
ROLES: tuple[LoraKind, LoraKind] = ("image", "condition")


@contextmanager
def attention_inputs(unet: UNet2DConditionModel) -> Iterator[list[AttentionInput]]:
    """Collect the inputs of the self-attention modules while the context lasts."""
    seen: list[AttentionInput] = []
    hooks = [
        module.register_forward_pre_hook(lambda attn, inputs: seen.append((attn, inputs[0])))
        for name, module in unet.named_modules()
        if name.endswith("attn1")
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def joint_alignment(inputs: Sequence[AttentionInput], adapter: str, num_heads: int) -> Tensor:
    """Cross entropy of the joint attention's position against the query's own position; 1 is chance level.

    Args:
        inputs: Inputs of one call with B images, then their B conditions.
        adapter: Name of the adapter.
        num_heads: Number of heads, from the first one, that the loss acts on.
    """
    losses = []
    for attn, tokens in inputs:
        (image_query, image_key), (query, key) = _role_queries_and_keys(attn, tokens, adapter, num_heads)
        losses += [_own_place(image_query, key), _own_place(query, image_key)]
    return torch.stack(losses).mean()


def _role_queries_and_keys(
    attn: Attention, tokens: Tensor, adapter: str, num_heads: int
) -> list[tuple[Tensor, Tensor]]:
    """Queries and keys (B, num_heads, N, C / H) of the images, then of the conditions."""
    count = len(tokens) // 2
    query, key, _ = base_qkv(attn, tokens, tokens)
    found = []
    for rows, role in zip((slice(count), slice(count, None)), ROLES, strict=True):
        name = lora_name(adapter, role)
        layers = ((attn.to_q, query), (attn.to_k, key))
        projected = [base[rows] + lora_delta(layer, name, tokens[rows]) for layer, base in layers]
        heads = [x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)[:, :num_heads] for x in projected]
        found.append((heads[0], heads[1]))
    return found


def _own_place(query: Tensor, key: Tensor) -> Tensor:
    logits = (query @ key.transpose(-1, -2)).float() / math.sqrt(query.shape[-1])
    places = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape[:-1])
    return cross_entropy(logits.flatten(0, -2), places.flatten()) / math.log(logits.shape[-1])
