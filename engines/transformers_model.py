# transformers declares the classes that its Auto classes return too widely.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""A loaded depth estimator of transformers. Imports torch.

Tested in tests/engines/test_transformers_depth.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from engines.depth import relative_inverse_depth
from engines.estimator import MapEngine
from engines.interfaces import Size, Target
from unicon.files.weights import variant_of, weights_to_load

UNUSED = re.compile(r"neck\.fusion_stage\.layers\.0\.residual_layer1\..*")
"""Weights of DPT that no result depends on; the published files lack them."""


class Prepared(NamedTuple):
    """Images of one working size as the model takes them."""

    pixels: Tensor
    """(B, 3, height, width)."""
    sizes: list[tuple[int, int]]
    """(height, width) of the images."""


class DepthModel(MapEngine):
    """A depth estimator with the image processor of its own folder, which decides the working sizes."""

    def __init__(self, target: Target, predicts: str) -> None:
        folder, options = target.folder, {"local_files_only": True, "trust_remote_code": False}
        assert folder is not None, "the engine has weights"
        names = weights_to_load("text_encoder", [path.name for path in folder.iterdir()])
        self.processor: Any = AutoImageProcessor.from_pretrained(folder, **options)
        model, info = AutoModelForDepthEstimation.from_pretrained(
            folder, dtype=getattr(torch, target.dtype), use_safetensors=bool(names), variant=variant_of(names),
            output_loading_info=True, **options,
        )  # fmt: skip
        missing = sorted(name for name in info["missing_keys"] if not UNUSED.fullmatch(name))
        if missing:
            raise ValueError(
                f"The weights of a model are those of its config.json; {folder} lacks {len(missing)} "
                f"({', '.join(missing[:3])}). Get the folder again."
            )
        self.model: Any = model.to(target.device).eval().requires_grad_(False)
        self.predicts = predicts
        self.votes = len(getattr(model.config, "bin_configurations", None) or ()) > 1
        post = inspect.signature(self.processor.post_process_depth_estimation).parameters
        self.takes_source = "source_sizes" in post
        self._size = lru_cache(maxsize=4096)(self._processed_size)

    def working_size(self, size: Size) -> Size:
        return self._size(size)

    def _processed_size(self, size: Size) -> Size:
        """(width, height) after the processing of an image, without processing one.

        An image that the processor refuses keeps its size, so that it fails later as a row of its own.
        """
        empty = torch.empty(3, size[1], size[0], dtype=torch.uint8, device="meta")
        try:
            height, width = self.processor(images=empty, return_tensors="pt")["pixel_values"].shape[-2:]
        except (ValueError, RuntimeError, ZeroDivisionError):
            return size
        return width, height

    def prepare(self, images: Sequence[Image.Image]) -> Prepared:
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return Prepared(pixels, [image.size[::-1] for image in images])

    @torch.inference_mode()
    def compute(self, prepared: Prepared, seeds: Sequence[int]) -> list[np.ndarray]:
        """Return predictions (H, W) in the sizes of the images.

        ZoeDepth with several heads lets a batch vote for one of them: there, images are processed one by one.
        """
        if self.votes and len(prepared.sizes) > 1:
            rows = [Prepared(pixels[None], [size]) for pixels, size in zip(*prepared, strict=True)]
            return [self.compute(row, seeds)[0] for row in rows]
        pixels = prepared.pixels.to(self.model.device, self.model.dtype)
        outputs = self.model(pixel_values=pixels)
        outputs.predicted_depth = outputs.predicted_depth.float()
        source = {"source_sizes": prepared.sizes} if self.takes_source else {}
        maps = self.processor.post_process_depth_estimation(outputs, target_sizes=prepared.sizes, **source)
        return [each["predicted_depth"].float().cpu().numpy() for each in maps]

    def finish(self, computed: Sequence[np.ndarray], images: Sequence[Image.Image]) -> list[np.ndarray]:
        return [relative_inverse_depth(predicted, self.predicts) for predicted in computed]
