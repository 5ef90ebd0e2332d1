# transformers and diffusers declare configurations and tuples too narrowly.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Tiny models of other engines with random weights, in folders that the real loaders read."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from transformers import (
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    DepthProImageProcessor,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    GLPNConfig,
    GLPNForDepthEstimation,
    GLPNImageProcessor,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
    ZoeDepthImageProcessor,
)

from tests.support.tiny import tiny_unet, write_tiny_model

HEADS = (
    {"name": "near", "n_bins": 8, "min_depth": 0.1, "max_depth": 5.0},
    {"name": "far", "n_bins": 8, "min_depth": 1.0, "max_depth": 80.0},
)


def _dinov2(stages: tuple[int, ...] = (1, 2, 3, 4), **settings: Any) -> Dinov2Config:
    return Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2,
        out_features=[f"stage{stage}" for stage in stages], reshape_hidden_states=False, **settings,
    )  # fmt: skip


def _depth_anything(kind: str) -> Any:
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=_dinov2(),
            patch_size=14,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=8,
            head_hidden_size=8,
            depth_estimation_type=kind,
            max_depth=20,
        )  # fmt: skip
    )


def _dpt() -> Any:
    return DPTForDepthEstimation(
        DPTConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=64,
            patch_size=16,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=8,
        )  # fmt: skip
    )


def _dpt_dinov2() -> Any:
    config = DPTConfig(
        backbone_config=_dinov2(), neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, hidden_size=16, patch_size=14
    )
    return DPTForDepthEstimation(config)


def _zoedepth(heads: int) -> Any:
    backbone = BeitConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        use_relative_position_bias=True, reshape_hidden_states=False, out_features=[f"stage{n}" for n in range(1, 5)],
    )  # fmt: skip
    return ZoeDepthForDepthEstimation(
        ZoeDepthConfig(
            backbone_config=backbone,
            backbone_hidden_size=16,
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=8,
            bottleneck_features=8,
            num_relative_features=8,
            bin_embedding_dim=8,
            num_attractors=[2, 2, 2, 2],
            bin_configurations=list(HEADS[:heads]),
            num_patch_transformer_layers=4 if heads > 1 else None,
            patch_transformer_hidden_size=128,
            patch_transformer_intermediate_size=16,
            patch_transformer_num_attention_heads=2,
        )  # fmt: skip
    )


def _depth_pro() -> Any:
    parts = {f"{part}_model_config": _dinov2().to_dict() | {"image_size": 28} for part in ("image", "patch", "fov")}
    return DepthProForDepthEstimation(
        DepthProConfig(
            patch_size=28,
            fusion_hidden_size=8,
            intermediate_hook_ids=[3, 1],
            intermediate_feature_dims=[8, 8],
            scaled_images_ratios=[0.5, 1.0],
            scaled_images_overlap_ratios=[0.0, 0.5],
            scaled_images_feature_dims=[8, 8],
            merge_padding_value=0,
            use_fov_model=True,
            **parts,
        )  # fmt: skip
    )


def _glpn() -> Any:
    config = GLPNConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8
    )
    return GLPNForDepthEstimation(config)


_DPT_SIZE = {"size": {"height": 56, "width": 56}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
DEPTH_MODELS: dict[str, tuple[Any, Any]] = {
    "depth_anything": (partial(_depth_anything, "relative"), partial(DPTImageProcessor, **_DPT_SIZE)),
    "depth_anything_metric": (partial(_depth_anything, "metric"), partial(DPTImageProcessor, **_DPT_SIZE)),
    "dpt": (_dpt, partial(DPTImageProcessor, size={"height": 64, "width": 64})),
    "dpt_dinov2": (_dpt_dinov2, partial(DPTImageProcessor, **_DPT_SIZE)),
    "zoedepth": (partial(_zoedepth, 1), partial(ZoeDepthImageProcessor, size={"height": 64, "width": 64})),
    "zoedepth_two_heads": (partial(_zoedepth, 2), partial(ZoeDepthImageProcessor, size={"height": 64, "width": 64})),
    "depth_pro": (_depth_pro, partial(DepthProImageProcessor, size={"height": 56, "width": 56})),
    "glpn": (_glpn, GLPNImageProcessor),
}
"""Name -> (makes the model, makes its image processor)."""


def write_depth_model(folder: Path, name: str = "depth_anything", *, pickled: bool = False) -> Path:
    """Write a depth estimator of transformers; `pickled` writes pytorch_model.bin instead of safetensors."""
    make, make_processor = DEPTH_MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the initial values are so small that all maps would be alike
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
        if name == "depth_pro":  # a field of view of 60 degrees
            [*model.fov_model.head.parameters()][-1].fill_(60.0)
    model.save_pretrained(folder)
    make_processor().save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def write_marigold(folder: Path, kind: str = "Depth", **config: Any) -> Path:
    """Write a Marigold pipeline for `Depth` or `Normals`, from the parts of `write_tiny_model`."""
    write_tiny_model(folder)
    shutil.rmtree(folder / "adapters")
    torch.manual_seed(1)
    given = {name: value for name, value in tiny_unet().config.items() if not name.startswith("_")}
    unet = UNet2DConditionModel(**{**given, "in_channels": 8})
    unet.save_pretrained(folder / "unet")
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
             "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"]}  # fmt: skip
    settings = {"default_denoising_steps": 2, "default_processing_resolution": 32, **config}
    if kind == "Normals":
        settings = {"prediction_type": "normals", **settings}
    if kind == "Depth":
        settings = {"prediction_type": "depth", "scale_invariant": True, "shift_invariant": True, **settings}
    index = {"_class_name": f"Marigold{kind}Pipeline", "_diffusers_version": "0.42.0", **parts, **settings}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_controlnet(folder: Path) -> Path:
    """Write a ControlNet of random weights for the model of `write_tiny_model`."""
    torch.manual_seed(2)
    net = ControlNetModel.from_unet(tiny_unet(), conditioning_embedding_out_channels=(8, 16))
    with torch.no_grad():
        for parameter in net.parameters():  # its last layers are zero until they are trained
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    net.save_pretrained(folder)
    return folder
