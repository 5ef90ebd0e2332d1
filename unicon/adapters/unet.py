# diffusers declares the blocks of its UNet as optional, and torch the children of modules loosely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOptionalMemberAccess=false
"""The modules of an adapter, and adding them to a UNet.

In every transformer block of the UNet, an adapter named "depth" consists of:

    attn1.to_q, to_k, to_v, to_out.0    LoRAs "depth-image" and "depth-condition" of the joint cross-attention
    attn1 and attn2, the same layers    LoRA "depth-condition_adapter" (condition rows only; absent for id, appearance)
    attn1.processor.joint_out           the zero-initialized output projection

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
    """Yield (module path, block) for every transformer block, in the order of `named_modules`."""
    for path, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock):
            yield path, module


def check_unet(unet: UNet2DConditionModel) -> None:
    """Raise ValueError unless the attention of a UNet is that of Stable Diffusion 1.x or 2.x."""
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
    """Configurations of the adapters in the UNet by name, in the order in which they were added."""
    for _, block in transformer_blocks(unet):
        return dict(getattr(block.attn1.processor, "configs", {}))
    return {}


def adapter_config(unet: UNet2DConditionModel, name: str) -> AdapterConfig:
    """The configuration of one adapter.

    Raises:
        ValueError: The UNet has no adapter of that name.
    """
    configs = adapter_configs(unet)
    if name not in configs:
        raise ValueError(f"The UNet has adapters {sorted(configs)}; got {name!r}. Add or load it first.")
    return configs[name]


def add_adapter(unet: UNet2DConditionModel, config: AdapterConfig, *, seed: int = 0) -> None:
    """Add a fresh adapter to the UNet, in place. Its joint output is zero, so the results of the model do not change.

    The LoRAs are initialized with peft's "gaussian", from `seed` alone. New parameters require gradients; all others
    keep their flag. To train adapters only, call `unet.requires_grad_(False)` beforehand.

    Raises:
        ValueError: The UNet is of another family, or the name is taken or reserved.
    """
    check_unet(unet)
    if config.name in adapter_configs(unet):
        raise ValueError(f"Adapter names are unique in a UNet; {config.name!r} is there already. Choose another name.")
    if hasattr(nn.ModuleDict, config.name):
        raise ValueError(f"An adapter's name is no attribute of torch modules; got {config.name!r}. Rename it.")
    requires_grad = {parameter: parameter.requires_grad for parameter in unet.parameters()}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several LoRAs in one UNet are intended
        torch.manual_seed(seed)
        for kind, attentions in config.loras:
            unet.add_adapter(_lora_config(config, attentions), adapter_name=lora_name(config.name, kind))
        _add_processors(unet, config)
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            module.enable_adapters(False)  # a plain call of the layer still computes the frozen model
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
    """All parameters of one adapter, by their names in this project's checkpoints.

    The names do not contain the adapter's name: BLOCK.attn1.to_q.lora_A.image.weight, ... and
    BLOCK.attn1.joint_out.weight.
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
    """Names and shapes of the parameters that an adapter has in a UNet, whether or not the UNet has the adapter."""
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
