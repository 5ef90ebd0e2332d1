"""Depth by any model of transformers' `AutoModelForDepthEstimation`: Depth Anything, DPT, ZoeDepth, Depth Pro, GLPN."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engines.depth import DEPTH, DISPARITY, predicts
from engines.family import Family
from engines.interfaces import Made, Target
from engines.options import EngineOption, Value
from unicon.files.headers import read_json
from unicon.files.weights import weights_to_load

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
PICKLE = "pytorch_model.bin"


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

    def area_px(self, name: str, options: Mapping[str, Value], folder: Path | None) -> int:
        assert folder is not None, "the engine has weights"
        size = read_json(folder / PROCESSOR).get("size")  # that of Depth Pro is large
        return int(size.get("height", 0)) * int(size.get("width", 0)) if isinstance(size, dict) else 0

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> Any:
        from engines.transformers_model import DepthModel

        assert target.folder is not None, "the engine has weights"
        return DepthModel(target, predicts(read_json(target.folder / CONFIG), options, name))
