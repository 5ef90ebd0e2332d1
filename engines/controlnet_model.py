# diffusers declares its pipelines' arguments and results too widely.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
"""A loaded ControlNet on its base model. Imports torch and diffusers.

Tested in tests/engines/test_controlnet.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline

from engines.diffusers_parts import stable_diffusion_parts
from engines.interfaces import Size, Target
from engines.options import Value
from unicon import images as image_tools
from unicon.conditions import CONDITIONS, Condition
from unicon.files.weights import variant_of, weights_to_load
from unicon.generation import Generated
from unicon.limits import ModelLimits
from unicon.outcomes import Failure, settled
from unicon.prompts import tokens_cut
from unicon.working_sizes import working_size


@dataclass(frozen=True, kw_only=True)
class ControlNetSynthesizer:
    """Images that follow one condition, see `engines.interfaces.Synthesizer`. Sampled by DDIM with trailing spacing."""

    pipeline: Any
    limits: ModelLimits
    options: Mapping[str, Value]
    device_name: str
    dtype: str
    weights_sha256: str = ""
    run: Callable[[Callable[[], Any]], Any] | None = None
    """Runs a call on the device in turns with others; see `in_turns`."""

    @classmethod
    def load(cls, options: Mapping[str, Value], target: Target) -> ControlNetSynthesizer:
        """Load the ControlNet in the folder of a target, and its base model.

        Raises:
            ValueError: The files do not hold exactly the weights of their configurations.
        """
        folder, base = target.folder, target.base
        assert folder is not None and base is not None, "the engine has weights and a base"
        variant = variant_of(weights_to_load("unet", [path.name for path in folder.iterdir()]))
        controlnet, info = ControlNetModel.from_pretrained(
            folder, torch_dtype=getattr(torch, target.dtype), use_safetensors=True, variant=variant,
            local_files_only=True, output_loading_info=True,
        )  # fmt: skip
        if wrong := [*info["missing_keys"], *info["unexpected_keys"]]:
            raise ValueError(f"A ControlNet has the weights of its config.json; {folder} differs in {wrong[:3]}.")
        pipeline = StableDiffusionControlNetPipeline(
            **stable_diffusion_parts(base, target),
            controlnet=controlnet.to(target.device).eval().requires_grad_(False),
            scheduler=DDIMScheduler.from_pretrained(base / "scheduler", timestep_spacing="trailing"),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        device = torch.device(target.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return cls(pipeline=pipeline, limits=ModelLimits.of_folder(base), options=options, device_name=name,
                   dtype=target.dtype)  # fmt: skip

    def in_turns(self, run: Callable[[Callable[[], Any]], Any]) -> ControlNetSynthesizer:
        """Return the same model for several threads, whose calls of the device all go through `run`."""
        return replace(self, run=run)

    def adapter_kind(self, name: str) -> Condition:
        """Return how the maps are decoded: as the option `kind` says, else by the name of the condition."""
        return CONDITIONS[str(self.options.get("kind", name))]

    def working_size(self, size: Size, *, resolution_px: int | None = None) -> Size:
        """(width, height) at which an image of `size` is made."""
        side = int(self.options.get("resolution_px", self.limits.native_px))
        return working_size(size, area=side * side, multiple=self.limits.multiple_px)

    def synthesize(
        self, conditions: Mapping[str, Sequence[np.ndarray]], prompts: Sequence[str], *, seeds: Sequence[int],
        negative_prompts: Sequence[str] | None = None, weights: Mapping[str, float] | None = None,
        strength: float = 0.0, options: Any = None,
    ) -> list[Generated]:  # fmt: skip
        """Make an image for each row of the maps, see `Synthesizer`. All maps have one working size.

        Raises:
            ValueError: There is not exactly one condition, or it is rough.
            NonFiniteError: The image of a row is not finite.
        """
        if len(conditions) != 1 or strength:
            raise ValueError(f"A ControlNet follows one exact condition; got {list(conditions)}, strength {strength}.")
        ((name, maps),) = conditions.items()
        sizes = [each.shape[1::-1] for each in maps]
        width, height = self.working_size(sizes[0])
        to_model = self.adapter_kind(name).to_model
        pixels = torch.stack([to_model(image_tools.resize_map(each, (width, height))) for each in maps]) * 0.5 + 0.5
        call = lambda: self.pipeline(  # noqa: E731
            list(prompts), image=pixels, negative_prompt=list(negative_prompts or [""] * len(prompts)),
            height=height, width=width, generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=int(self.options.get("num_inference_steps", 20)),
            guidance_scale=float(self.options.get("guidance_scale", 7.5)),
            controlnet_conditioning_scale=float((weights or {}).get(name, 1.0)), output_type="pt",
        ).images.float().cpu()  # fmt: skip
        images = call() if self.run is None else self.run(call)
        cut = tokens_cut(self.pipeline.tokenizer, prompts)
        return settled([self._generated(*row, name) for row in zip(images, sizes, maps, cut, strict=True)])

    def _generated(
        self, pixels: torch.Tensor, size: Size, given: np.ndarray, tokens: int, name: str
    ) -> Generated | Failure:
        """Return the result of a row from pixels (3, height, width) in [0, 1]."""
        if not bool(pixels.isfinite().all()):
            return Failure(f"the image is not finite in {self.dtype}: try bfloat16 or float32 (--dtype).")
        return Generated(image_tools.from_model(pixels * 2.0 - 1.0, size), {name: given}, tokens)
