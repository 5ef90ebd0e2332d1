"""Convert a model folder to one checkpoint with the names of the original Stable Diffusion code."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OUTER = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def unet_name(key: str, layers: int, levels: int) -> str:
    """Return the original name of a UNet tensor.

    Args:
        key: Name of the tensor in diffusers.
        layers: Number of layers per down block.
        levels: Number of resolutions, each with attention.
    """
    for ours, theirs in OUTER.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    resnet = re.match(r"(.*\.resnets\.\d+)\.(\w+)\.", key)
    if resnet:
        key = key.replace(f"{resnet[1]}.{resnet[2]}.", f"{resnet[1]}.{RESNET[resnet[2]]}.", 1)
    middle = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.", key)
    if middle:
        place = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return key.replace(middle[0], f"middle_block.{place}.", 1)
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.", key)
    assert match, key
    block, layer = int(match[2]), int(match[4])
    kind = match[3]
    if match[1] == "down":
        number = 1 + block * (layers + 1) + (layers if kind == "downsamplers" else layer)
        inside = {"resnets": "0.", "attentions": "1.", "downsamplers": "0."}[kind]
        rest = key.removeprefix(match[0])
        return f"input_blocks.{number}.{inside}{rest.replace('conv.', 'op.', 1) if kind == 'downsamplers' else rest}"
    number = block * (layers + 1) + (layers if kind == "upsamplers" else layer)
    inside = {"resnets": "0.", "attentions": "1.", "upsamplers": "2."}[kind]
    return f"output_blocks.{number}.{inside}{key.removeprefix(match[0])}"


def vae_name(key: str, levels: int) -> str:
    """Return the original name of a VAE tensor; the original code counts up blocks in reverse."""
    key = key.replace("conv_norm_out.", "norm_out.").replace(".conv_shortcut.", ".nin_shortcut.")
    attention = re.match(r"(\w+)\.mid_block\.attentions\.0\.(group_norm|to_q|to_k|to_v|to_out\.0)\.", key)
    if attention:
        return key.replace(attention[0], f"{attention[1]}.mid.attn_1.{ATTENTION[attention[2]]}.", 1)
    middle = re.match(r"(\w+)\.mid_block\.resnets\.(\d)\.", key)
    if middle:
        return key.replace(middle[0], f"{middle[1]}.mid.block_{int(middle[2]) + 1}.", 1)
    block = re.match(r"(\w+)\.(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.", key)
    if block is None:
        return key
    number = int(block[3]) if block[2] == "down" else levels - 1 - int(block[3])
    inside = f"block.{block[5]}" if block[4] == "resnets" else {"down": "downsample", "up": "upsample"}[block[2]]
    return key.replace(block[0], f"{block[1]}.{block[2]}.{number}.{inside}.", 1)


def write_checkpoint(folder: Path, path: Path) -> None:
    """Write the checkpoint of a tiny model (`tests.support.tiny`): one layer per block, two levels with attention."""
    tensors: dict[str, Tensor] = {}
    for key, value in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors").items():
        tensors[f"model.diffusion_model.{unet_name(key, 1, 2)}"] = value
    for key, value in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        name = vae_name(key, 2)
        is_matrix = ".attn_1." in name and name.endswith("weight") and value.ndim == 2
        tensors[f"first_stage_model.{name}"] = value[:, :, None, None] if is_matrix else value
    for key, value in load_file(folder / "text_encoder" / "model.safetensors").items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
