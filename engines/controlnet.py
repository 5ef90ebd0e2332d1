"""ControlNet of diffusers: images that follow one condition, on a Stable Diffusion of 1.x or 2.x.

Source: arXiv 2302.05543.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engines.family import Family
from engines.interfaces import Made, Target
from engines.options import EngineOption, Value
from unicon.condition_kinds import CONDITION_KINDS
from unicon.files.headers import read_json
from unicon.files.weights import weights_to_load

CONFIG = "config.json"
SHARED = ("cross_attention_dim", "block_out_channels", "layers_per_block", "in_channels")
"""What a ControlNet has in common with the UNet of its base model."""


class ControlNet(Family):
    """See `Family`."""

    name, package, makes_images = "controlnet", "diffusers", True
    help = "images by diffusers' ControlNet on the base --model"
    known = (
        EngineOption(name="num_inference_steps", help="sampling steps", kind=int, default=20, least=1, most=1000),
        EngineOption(name="guidance_scale", help="text guidance; 1: none", kind=float, default=7.5, least=1, most=100),
        EngineOption(name="resolution_px", help="side of the square of its area", kind=int, least=16, most=8192),
        EngineOption(name="kind", help="of the condition", kind=str, choices=tuple(CONDITION_KINDS)),
    )

    def choose(self, name: str, names: Collection[str]) -> Collection[str]:
        weights = weights_to_load("unet", names)
        if CONFIG not in names or not weights:
            raise FileNotFoundError(f"a ControlNet has {CONFIG}, diffusion_pytorch_model.safetensors, unlike {name}.")
        return [CONFIG, *weights]

    def makes(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Made | None:
        assert folder is not None, "the engine has weights"
        if (found := read_json(folder / CONFIG).get("_class_name")) != "ControlNetModel":
            raise ValueError(f"controlnet takes a ControlNetModel; {name} is a {found}. Name another folder.")
        kind = options.get("kind")
        return Made(str(kind), str(kind)) if kind else None

    def check_base(self, folder: Path, base: Path) -> None:
        ours, theirs = read_json(folder / CONFIG), read_json(base / "unet" / CONFIG)
        if wrong := [each for each in SHARED if ours.get(each) != theirs.get(each)]:
            raise ValueError(
                f"a ControlNet has the shape of its base model's UNet; its {wrong[0]} is {ours.get(wrong[0])}, that of "
                f"the base is {theirs.get(wrong[0])}. Name the base that it was trained on with --model."
            )

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> Any:
        from engines.controlnet_model import ControlNetSynthesizer

        return ControlNetSynthesizer.load(options, target)
