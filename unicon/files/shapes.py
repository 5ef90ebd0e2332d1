"""Names and shapes of the tensors in the parts of Stable Diffusion, derived from their configurations without torch.

They equal those of diffusers' `UNet2DConditionModel` and `AutoencoderKL` and transformers' `CLIPTextModel`, as a test
verifies. The result is None for a configuration beyond Stable Diffusion 1.x and 2.x; only loading can check it then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

UNET_DEFAULTS: Mapping[str, Any] = {
    "sample_size": None, "in_channels": 4, "out_channels": 4, "center_input_sample": False, "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "only_cross_attention": False, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
    "downsample_padding": 1, "mid_block_scale_factor": 1, "dropout": 0.0, "act_fn": "silu", "norm_num_groups": 32,
    "norm_eps": 1e-05, "cross_attention_dim": 1280, "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "attention_head_dim": 8, "num_attention_heads": None, "dual_cross_attention": False,
    "use_linear_projection": False, "class_embed_type": None, "addition_embed_type": None,
    "addition_time_embed_dim": None, "num_class_embeds": None, "upcast_attention": False,
    "resnet_time_scale_shift": "default", "resnet_skip_time_act": False, "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional", "time_embedding_dim": None, "time_embedding_act_fn": None,
    "timestep_post_act": None, "time_cond_proj_dim": None, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None, "attention_type": "default", "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None, "cross_attention_norm": None, "addition_embed_type_num_heads": 64,
}  # fmt: skip
VAE_DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"], "block_out_channels": [64], "layers_per_block": 1, "act_fn": "silu",
    "latent_channels": 4, "norm_num_groups": 32, "scaling_factor": 0.18215, "shift_factor": None,
    "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True,
}  # fmt: skip
"""Values that change results. The others (tile sizes, statistics of other pipelines, casts) do not."""
TEXT_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05,
}  # fmt: skip
"""Values that change results. The pooled output (`eos_token_id`, `projection_dim`) is not used."""
UNET_SHAPE_KEYS = (
    "in_channels", "out_channels", "block_out_channels", "layers_per_block", "down_block_types", "mid_block_type",
    "up_block_types", "transformer_layers_per_block", "cross_attention_dim", "attention_head_dim",
    "num_attention_heads", "use_linear_projection",
)  # fmt: skip
"""Values of a UNet's configuration that an adapter depends on and records."""
_SHAPING = (
    "only_cross_attention", "encoder_hid_dim", "encoder_hid_dim_type", "dual_cross_attention", "class_embed_type",
    "addition_embed_type", "num_class_embeds", "resnet_time_scale_shift", "time_embedding_type", "time_embedding_dim",
    "attention_type", "class_embeddings_concat", "mid_block_only_cross_attention", "cross_attention_norm",
    "reverse_transformer_layers_per_block", "conv_in_kernel", "conv_out_kernel",
)  # fmt: skip
"""Values with which a UNet has other tensors than Stable Diffusion's, unless they are the default."""
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names in autoencoders written before diffusers 0.18 -> current names. diffusers converts them as well."""

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def with_defaults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration that are in `defaults`, with absent ones filled in and tuples made lists."""
    return {name: _plain(config.get(name, default)) for name, default in defaults.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def unet_shapes(config: Mapping[str, Any]) -> dict[str, Shape] | None:
    """Names and shapes of the tensors of a UNet."""
    values = with_defaults(config, UNET_DEFAULTS)
    if any(values[name] != UNET_DEFAULTS[name] for name in _SHAPING) or not _is_plain_unet(values):
        return None
    return dict(_unet(values))


def _is_plain_unet(values: Mapping[str, Any]) -> bool:
    downs, ups, widths = values["down_block_types"], values["up_block_types"], values["block_out_channels"]
    per_block = values["transformer_layers_per_block"]
    return (
        set(downs) <= {"CrossAttnDownBlock2D", "DownBlock2D"}
        and set(ups) <= {"CrossAttnUpBlock2D", "UpBlock2D"}
        and values["mid_block_type"] == "UNetMidBlock2DCrossAttn"
        and len(downs) == len(ups) == len(widths)
        and isinstance(values["layers_per_block"], int)
        and isinstance(values["cross_attention_dim"], int)
        and (isinstance(per_block, int) or (len(per_block) == len(downs) and all(type(n) is int for n in per_block)))
    )


def _unet(values: Mapping[str, Any]) -> Named:
    widths: list[int] = values["block_out_channels"]
    depths = values["transformer_layers_per_block"]
    depths = [depths] * len(widths) if isinstance(depths, int) else depths
    layers, time = values["layers_per_block"], 4 * widths[0]
    yield from _layer("conv_in", (widths[0], values["in_channels"], 3, 3))
    yield from _layer("time_embedding.linear_1", (time, widths[0]))
    yield from _layer("time_embedding.linear_2", (time, time))
    if values["time_cond_proj_dim"]:
        yield "time_embedding.cond_proj.weight", (widths[0], values["time_cond_proj_dim"])
    for index, kind in enumerate(values["down_block_types"]):
        block, width, before = f"down_blocks.{index}", widths[index], widths[max(0, index - 1)]
        inputs = [before] + [width] * (layers - 1)
        yield from _unet_block(block, inputs, width, time, depths[index] if "CrossAttn" in kind else 0, values)
        if index < len(widths) - 1:
            yield from _layer(f"{block}.downsamplers.0.conv", (width, width, 3, 3))
    yield from _unet_block("mid_block", [widths[-1]] * 2, widths[-1], time, depths[-1], values, attentions=1)
    yield from _ups(values, widths[::-1], depths[::-1], layers + 1, time)
    yield from _norm("conv_norm_out", widths[0])
    yield from _layer("conv_out", (values["out_channels"], widths[0], 3, 3))


def _ups(values: Mapping[str, Any], widths: list[int], depths: Sequence[int], layers: int, time: int) -> Named:
    for index, kind in enumerate(values["up_block_types"]):
        block, width, before = f"up_blocks.{index}", widths[index], widths[max(0, index - 1)]
        last_skip = widths[min(index + 1, len(widths) - 1)]
        inputs = [
            (before if layer == 0 else width) + (last_skip if layer == layers - 1 else width) for layer in range(layers)
        ]
        yield from _unet_block(block, inputs, width, time, depths[index] if "CrossAttn" in kind else 0, values)
        if index < len(widths) - 1:
            yield from _layer(f"{block}.upsamplers.0.conv", (width, width, 3, 3))


def _unet_block(
    block: str, inputs: Sequence[int], width: int, time: int, depth: int, values: Mapping[str, Any],
    attentions: int | None = None,
) -> Named:  # fmt: skip
    """Residual blocks; where `depth` is not 0, each of the first `attentions` is followed by `depth` transformers."""
    for index, channels in enumerate(inputs):
        yield from _resnet(f"{block}.resnets.{index}", channels, width, time)
    for index in range((len(inputs) if attentions is None else attentions) if depth else 0):
        yield from _transformer(f"{block}.attentions.{index}", width, depth, values)


def _transformer(name: str, width: int, depth: int, values: Mapping[str, Any]) -> Named:
    projection = (width, width) if values["use_linear_projection"] else (width, width, 1, 1)
    yield from _norm(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", projection)
    yield from _layer(f"{name}.proj_out", projection)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for norm in ("norm1", "norm2", "norm3"):
            yield from _norm(f"{block}.{norm}", width)
        for attention, context in (("attn1", width), ("attn2", values["cross_attention_dim"])):
            yield f"{block}.{attention}.to_q.weight", (width, width)
            yield f"{block}.{attention}.to_k.weight", (width, context)
            yield f"{block}.{attention}.to_v.weight", (width, context)
            yield from _layer(f"{block}.{attention}.to_out.0", (width, width))
        yield from _layer(f"{block}.ff.net.0.proj", (8 * width, width))
        yield from _layer(f"{block}.ff.net.2", (width, 4 * width))


def _resnet(name: str, inputs: int, outputs: int, time: int = 0) -> Named:
    yield from _norm(f"{name}.norm1", inputs)
    yield from _layer(f"{name}.conv1", (outputs, inputs, 3, 3))
    if time:
        yield from _layer(f"{name}.time_emb_proj", (outputs, time))
    yield from _norm(f"{name}.norm2", outputs)
    yield from _layer(f"{name}.conv2", (outputs, outputs, 3, 3))
    if inputs != outputs:
        yield from _layer(f"{name}.conv_shortcut", (outputs, inputs, 1, 1))


def _layer(name: str, weight: Shape) -> Named:
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]


def conv_shapes(name: str, inputs: int, outputs: int) -> Named:
    """Names and shapes of the weight and bias of a 3 x 3 convolution."""
    yield from _layer(name, (outputs, inputs, 3, 3))


def _norm(name: str, width: int) -> Named:
    yield from _layer(name, (width,))


def vae_shapes(config: Mapping[str, Any]) -> dict[str, Shape] | None:
    """Names and shapes of the tensors of an autoencoder."""
    values = with_defaults(config, VAE_DEFAULTS)
    kinds = {*values["down_block_types"], *values["up_block_types"]}
    widths, downs, ups = values["block_out_channels"], values["down_block_types"], values["up_block_types"]
    if kinds != {"DownEncoderBlock2D", "UpDecoderBlock2D"} or not len(widths) == len(downs) == len(ups):
        return None
    latent = values["latent_channels"]
    shapes = dict(_vae_side("encoder", widths, values["in_channels"], 2 * latent, values, layers=0))
    shapes |= dict(_vae_side("decoder", widths[::-1], latent, values["out_channels"], values, layers=1))
    if values["use_quant_conv"]:
        shapes |= dict(_layer("quant_conv", (2 * latent, 2 * latent, 1, 1)))
    if values["use_post_quant_conv"]:
        shapes |= dict(_layer("post_quant_conv", (latent, latent, 1, 1)))
    return shapes


def _vae_side(
    side: str, widths: Sequence[int], inputs: int, outputs: int, values: Mapping[str, Any], layers: int
) -> Named:
    """Encoder or decoder, with `layers` more layers in each block than the configuration says."""
    blocks, sampler = ("down_blocks", "downsamplers") if side == "encoder" else ("up_blocks", "upsamplers")
    middle = widths[-1] if side == "encoder" else widths[0]
    yield from _layer(f"{side}.conv_in", (widths[0], inputs, 3, 3))
    for index, width in enumerate(widths):
        for layer in range(values["layers_per_block"] + layers):
            before = widths[max(0, index - 1)] if layer == 0 else width
            yield from _resnet(f"{side}.{blocks}.{index}.resnets.{layer}", before, width)
        if index < len(widths) - 1:
            yield from _layer(f"{side}.{blocks}.{index}.{sampler}.0.conv", (width, width, 3, 3))
    for layer in range(2):
        yield from _resnet(f"{side}.mid_block.resnets.{layer}", middle, middle)
    if values["mid_block_add_attention"]:
        yield from _norm(f"{side}.mid_block.attentions.0.group_norm", middle)
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _layer(f"{side}.mid_block.attentions.0.{name}", (middle, middle))
    yield from _norm(f"{side}.conv_norm_out", widths[-1])
    yield from _layer(f"{side}.conv_out", (outputs, widths[-1], 3, 3))


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The relevant values of a text encoder's configuration, which may be nested in that of a whole CLIP."""
    nested = config.get("text_config")
    return with_defaults(nested if isinstance(nested, Mapping) else config, TEXT_DEFAULTS)


def text_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Names and shapes of the tensors of a CLIP text encoder."""
    values = text_config(config)
    return dict(_text(values, values["hidden_size"], values["intermediate_size"]))


def _text(values: Mapping[str, Any], width: int, inner: int) -> Named:
    yield "embeddings.token_embedding.weight", (values["vocab_size"], width)
    yield "embeddings.position_embedding.weight", (values["max_position_embeddings"], width)
    for index in range(values["num_hidden_layers"]):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{layer}.self_attn.{name}", (width, width))
        yield from _layer(f"{layer}.mlp.fc1", (inner, width))
        yield from _layer(f"{layer}.mlp.fc2", (width, inner))
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _norm(f"{layer}.layer_norm2", width)
    yield from _norm("final_layer_norm", width)


def current_name(part: str, key: str) -> str | None:
    """The current name of a stored tensor; None for a tensor of older versions that is no longer needed."""
    if part == "text_encoder":
        key = key.removeprefix("text_model.")
        return None if key in ("embeddings.position_ids", "text_projection.weight") else key
    if part == "vae":
        old = re.fullmatch(r"(.+\.mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", key)
        return f"{old[1]}.{_OLD_ATTENTION[old[2]]}.{old[3]}" if old else key
    return key
