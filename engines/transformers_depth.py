"""Depth by any model of transformers' `AutoModelForDepthEstimation`: Depth Anything, DPT, ZoeDepth, Depth Pro, GLPN."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engines.depth import DEPTH, DISPARITY
from engines.family import Family
from engines.interfaces import Made, Target
from engines.options import EngineOption, Value
from unicon.files.headers import read_json
from unicon.files.weights import weights_to_load

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
PICKLE = "pytorch_model.bin"
PREDICTS: Mapping[str, str] = {"dpt": DISPARITY, "zoedepth": DEPTH, "depth_pro": DEPTH, "glpn": DEPTH}
"""Type of model -> what it predicts, after the processing of its outputs by transformers."""
BY_CONFIG = ("depth_anything", "prompt_depth_anything")
"""Types of models whose configuration says what they predict: relative (disparity) or metric (depth)."""


class TransformersDepth(Family):
    """See `Family`."""

    name, package = "transformers", "transformers"
    help = "depth by Depth Anything, DPT, ZoeDepth, Depth Pro, GLPN"
    known = (
        EngineOption(
            name="predicts", help="what the model predicts", kind=str, choices=(DEPTH, DISPARITY), default=None
        ),
    )

    def choose(self, name: str, names: Collection[str]) -> Collection[str]:
        weights = weights_to_load("text_encoder", names) or [file for file in names if file == PICKLE]
        missing = [file for file in (CONFIG, PROCESSOR) if file not in names] + ([] if weights else ["weights"])
        if missing:
            raise FileNotFoundError(
                f"a model of transformers has {CONFIG}, {PROCESSOR} and model.safetensors (or {PICKLE}); {name} lacks "
                f"{', '.join(missing)}. Get the folder again."
            )
        return [CONFIG, PROCESSOR, *weights]

    def makes(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Made:
        assert folder is not None, "the engine has weights"
        predicts(read_json(folder / CONFIG), options, name)
        return Made("depth", "depth")

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> Any:
        from engines.transformers_model import DepthModel

        assert target.folder is not None, "the engine has weights"
        return DepthModel(target, predicts(read_json(target.folder / CONFIG), options, name))


def predicts(config: Mapping[str, Any], options: Mapping[str, Value], name: str) -> str:
    """Return what a model predicts, by its configuration unless an option says it. ValueError for unknown models."""
    kind = str(config.get("model_type"))
    if given := options.get("predicts"):
        return str(given)
    if kind in BY_CONFIG:
        return DEPTH if config.get("depth_estimation_type") == "metric" else DISPARITY
    if kind == "dpt" and (config.get("backbone_config") or {}).get("model_type") == "dinov2":
        return DEPTH  # trained on distances, unlike the DPT models of MiDaS
    if kind not in PREDICTS:
        raise ValueError(
            f"depth is estimated by models of the types {', '.join((*BY_CONFIG, *PREDICTS))}; {name} is of type "
            f"{kind!r}. If it is a depth estimator, add --engine-option predicts={DEPTH} or predicts={DISPARITY}."
        )
    return PREDICTS[kind]
