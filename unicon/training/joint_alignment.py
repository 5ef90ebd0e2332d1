"""Teaching joint attention where to look: corresponding places of an image and its condition.

A pretrained UNet's features say where they are; those of an untrained one do not, and joint attention learns to find
its place only slowly. This loss tells it: as many heads as wanted take the place itself for the right answer.

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
"""A self-attention module and the (2B, N, C) tokens it was given."""
ROLES: tuple[LoraKind, LoraKind] = ("image", "condition")


@contextmanager
def attention_inputs(unet: UNet2DConditionModel) -> Iterator[list[AttentionInput]]:
    """Collects what the self-attention modules are given while the context lasts."""
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
    """Cross entropy of the joint attention's choice of a place, against the query's own place; 1 is chance.

    inputs: of one call with B images, then their B conditions. num_heads: heads that are told, the first ones.
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
