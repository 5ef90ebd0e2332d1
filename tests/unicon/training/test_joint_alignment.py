# diffusers declares the blocks of its UNet as any module.
# pyright: reportArgumentType=false
"""The alignment loss is low where queries attend to their own position."""

from __future__ import annotations

import pytest
import torch

from tests.support.tiny import tiny_unet
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import add_adapter
from unicon.training.joint_alignment import attention_inputs, joint_alignment


def test_alignment_finds_its_place_when_places_differ() -> None:
    """Tokens that are far apart find their own place, equal ones are at chance; no hook stays behind."""
    unet = tiny_unet()
    add_adapter(unet, AdapterConfig(name="depth", rank=2))
    attn = next(module for name, module in unet.named_modules() if name.endswith("attn1"))
    attn.to_k.get_base_layer().weight.data.copy_(attn.to_q.get_base_layer().weight.data)
    width = attn.to_q.in_features
    far_apart = 30 * torch.eye(width)[None, :8].repeat(4, 1, 1)
    assert joint_alignment([(attn, far_apart)], "depth", 1).item() < 0.5
    assert joint_alignment([(attn, torch.ones(4, 8, width))], "depth", 1).item() == pytest.approx(1.0, abs=1e-3)
    with attention_inputs(unet):
        assert any(module._forward_pre_hooks for module in unet.modules())
    assert not any(module._forward_pre_hooks for module in unet.modules())
