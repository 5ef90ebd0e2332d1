"""What an adapter is, and adding one to a UNet.

An adapter named "depth" is, in every transformer block of the UNet:

    attn1.to_q, to_k, to_v, to_out.0    LoRA "depth-image" and "depth-condition" (joint cross-attention, one a role)
    attn1 and attn2, the same layers    LoRA "depth-condition_adapter" (condition rows only; absent for id, appearance)
    attn1.processor.joint_out           the zero-initialised output projection

Source: arXiv 2410.11439, sections 3.1 and 3.2.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn

from unicon.adapters.attention import JointAttention, JointOut, TextAttention
from unicon.adapters.config import AdapterConfig, lora_name

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def transformer_blocks(unet: UNet2DConditionModel) -> Iterator[tuple[str, BasicTransformerBlock]]:
    """(module path, block) of every transformer block, in the order of `named_modules`."""
    for path, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock):
            yield path, module


def check_unet(unet: UNet2DConditionModel) -> None:
    """Refuse UNets whose attention is not Stable Diffusion's (1.x, 2.x: self-attention, then text attention)."""
    blocks = list(transformer_blocks(unet))
    attentions = {id(block.attn1) for _, block in blocks} | {id(block.attn2) for _, block in blocks}
    foreign = [
        path for path, module in unet.named_modules() if isinstance(module, Attention) and id(module) not in attentions
    ]
    plain = all(
        attention is not None and attention.group_norm is None and attention.spatial_norm is None
        and attention.norm_q is None and not attention.norm_cross and not attention.residual_connection
        and attention.rescale_output_factor == 1 and attention.is_cross_attention == crosses
        for _, block in blocks
        for attention, crosses in ((block.attn1, False), (block.attn2, True))
    )  # fmt: skip
    if not blocks or foreign or not plain:
        raise ValueError(
            "UniCon needs a Stable Diffusion 1.x or 2.x UNet: every attention in a transformer block of "
            f"self-attention and text cross-attention. Found {len(blocks)} such blocks, other attentions "
            f"{foreign[:3]}, standard layers: {plain}. Choose another base model."
        )


def adapter_configs(unet: UNet2DConditionModel) -> dict[str, AdapterConfig]:
    """Configurations of the adapters in the UNet, by name, in the order they were added."""
    for _, block in transformer_blocks(unet):
        return dict(getattr(block.attn1.processor, "configs", {}))
    return {}


def adapter_config(unet: UNet2DConditionModel, name: str) -> AdapterConfig:
    """Configuration of one adapter; ValueError when the UNet has none of that name."""
    configs = adapter_configs(unet)
    if name not in configs:
        raise ValueError(f"The UNet has adapters {sorted(configs)}; got {name!r}. Add or load it first.")
    return configs[name]


def add_adapter(unet: UNet2DConditionModel, config: AdapterConfig, *, seed: int = 0) -> None:
    """Add a fresh adapter to the UNet, in place; the joint output is zero, so the model computes what it did.

    LoRA initialisation is peft's "gaussian", from `seed` alone. New parameters require gradients; every other
    parameter keeps its flag (freeze the UNet with `unet.requires_grad_(False)` before, if only adapters train).
    Errors: ValueError for a UNet of another family or a name that is taken.
    """
    check_unet(unet)
    if config.name in adapter_configs(unet):
        raise ValueError(f"Adapter names are unique in a UNet; {config.name!r} is there already. Choose another name.")
    requires_grad = {parameter: parameter.requires_grad for parameter in unet.parameters()}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several LoRA in one UNet is the intent
        torch.manual_seed(seed)
        for kind, attentions in config.loras:
            unet.add_adapter(_lora_config(config, attentions), adapter_name=lora_name(config.name, kind))
        _add_processors(unet, config)
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            module.enable_adapters(False)  # a plain call of the layer stays the plain frozen model
    for parameter in unet.parameters():
        parameter.requires_grad_(requires_grad.get(parameter, True))


def _lora_config(config: AdapterConfig, attentions: tuple[str, ...]) -> LoraConfig:
    layers = "|".join(re.escape(layer) for layer in PROJECTIONS)
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        init_lora_weights="gaussian",
        target_modules=rf".*\.({'|'.join(attentions)})\.({layers})",
    )


def _add_processors(unet: UNet2DConditionModel, config: AdapterConfig) -> None:
    for _, block in transformer_blocks(unet):
        if not isinstance(block.attn1.processor, JointAttention):
            block.attn1.set_processor(JointAttention())  # type: ignore[arg-type]
            block.attn2.set_processor(TextAttention())  # type: ignore[arg-type]
        joint, text = block.attn1.processor, block.attn2.processor
        weight = block.attn1.to_q.weight
        joint.configs[config.name] = config
        joint.joint_out[config.name] = JointOut(block.attn1.inner_dim, config.projection).to(
            weight.device, weight.dtype
        )
        if config.condition_adapter:
            joint.condition_adapters.add(config.name)
            text.condition_adapters.add(config.name)


def named_adapter_parameters(unet: UNet2DConditionModel, name: str) -> dict[str, nn.Parameter]:
    """Every parameter of one adapter under its name in our checkpoint, which does not contain the adapter's name.

    Names: BLOCK.attn1.to_q.lora_A.image.weight, ... and BLOCK.attn1.joint_out.weight.
    """
    config = adapter_config(unet, name)
    parameters: dict[str, nn.Parameter] = {}
    for path, block in transformer_blocks(unet):
        for kind, attentions in config.loras:
            for attention in attentions:
                for layer in PROJECTIONS:
                    lora = block.get_submodule(f"{attention}.{layer}")
                    for half in ("lora_A", "lora_B"):
                        key = f"{path}.{attention}.{layer}.{half}.{kind}.weight"
                        parameters[key] = getattr(lora, half)[lora_name(name, kind)].weight
        parameters[f"{path}.attn1.joint_out.weight"] = block.attn1.processor.joint_out[name].linear.weight
    return parameters


def adapter_parameters(unet: UNet2DConditionModel, name: str) -> list[nn.Parameter]:
    """The parameters of one adapter, for an optimizer."""
    return list(named_adapter_parameters(unet, name).values())


def adapter_shapes(unet: UNet2DConditionModel, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """The names of `named_adapter_parameters` with their shapes, for a UNet that may not have the adapter."""
    check_unet(unet)
    shapes: dict[str, tuple[int, ...]] = {}
    for path, block in transformer_blocks(unet):
        for kind, attentions in config.loras:
            for attention in attentions:
                for layer in PROJECTIONS:
                    outputs, inputs = block.get_submodule(f"{attention}.{layer}").weight.shape
                    key = f"{path}.{attention}.{layer}"
                    shapes[f"{key}.lora_A.{kind}.weight"] = (config.rank, inputs)
                    shapes[f"{key}.lora_B.{kind}.weight"] = (outputs, config.rank)
        width = block.attn1.inner_dim * (2 if config.projection == "fused" else 1)
        shapes[f"{path}.attn1.joint_out.weight"] = (width, width)
    return shapes
