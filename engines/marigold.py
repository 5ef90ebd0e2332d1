"""Marigold of diffusers: depth or surface normals by a fine-tuned Stable Diffusion.

Source: arXiv 2312.02145 (depth) and arXiv 2505.09358 (normals).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engines.family import Family
from engines.interfaces import Made, Target
from engines.options import EngineOption, Value
from unicon.files.headers import read_json
from unicon.files.weights import WEIGHT_STEMS, files_to_load

INDEX = "model_index.json"
MAKES = {"MarigoldDepthPipeline": Made("depth", "depth"), "MarigoldNormalsPipeline": Made("normal", "normal")}
"""Name of the pipeline in its folder -> what it makes."""


class Marigold(Family):
    """See `Family`."""

    name, package = "marigold", "diffusers"
    help = "depth, or normals, by diffusers' Marigold"
    known = (
        EngineOption(name="num_inference_steps", help="sampling steps", kind=int, least=1, most=1000),
        EngineOption(name="ensemble_size", help="estimates to combine", kind=int, default=1, least=1, most=100),
        EngineOption(name="processing_resolution", help="longer side; 0: as it is", kind=int, least=0, most=8192),
        EngineOption(name="near_to_far", help="nearest / farthest depth", kind=float, default=1.0, least=0.001, most=1),
    )

    def choose(self, name: str, names: Collection[str]) -> Collection[str]:
        chosen = {file for file in files_to_load(names) if not file.startswith(("adapters/", "decoders/"))}
        wanted = [INDEX, *(f"{part}/config.json" for part in WEIGHT_STEMS), "scheduler/scheduler_config.json"]
        missing = [file for file in wanted if file not in chosen]
        have = {file.split("/")[0] for file in chosen if file.endswith(".safetensors")}
        missing += [f"{part}/*.safetensors" for part in WEIGHT_STEMS if part not in have]
        if missing:
            raise FileNotFoundError(f"a Marigold folder has {', '.join(missing)}; {name} has not. Get it again.")
        return chosen

    def makes(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Made:
        assert folder is not None, "the engine has weights"
        index = read_json(folder / INDEX)
        found = str(index.get("_class_name"))
        if found not in MAKES:
            raise ValueError(f"marigold is one of {', '.join(MAKES)}; {name} is a {found}. Name another folder.")
        if "near_to_far" in options and (MAKES[found].kind != "depth" or index.get("prediction_type") == "disparity"):
            raise ValueError(f"near_to_far belongs to a model that predicts depth; {name} does not. Remove the option.")
        return MAKES[found]

    def area_px(self, name: str, options: Mapping[str, Value], folder: Path | None) -> int:
        return int(options.get("processing_resolution", 0)) ** 2

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> Any:
        from engines.marigold_model import MarigoldModel

        return MarigoldModel(options, target)
