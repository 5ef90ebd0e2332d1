"""Loading an engine in the process that runs it. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engines.estimator import EngineEstimator
from engines.spec import EngineSpec
from unicon.devices import floating_dtype, usable_device


def load(spec: EngineSpec, folder: Path | None, device: str | None, dtype: str | None, base: Path | None) -> Any:
    """Load an engine, see `EngineSpec.load`.

    Raises:
        ValueError: The device or the data type does not exist.
    """
    family, place = spec.family, usable_device(device)
    chosen = dtype or ("float16" if place.type == "cuda" else "float32") if family.has_dtype else "float32"
    floating_dtype(chosen)
    engine = family.load(spec, folder, str(place), chosen, base)
    if family.makes_images:
        return engine
    made = spec.makes(folder)
    assert made is not None, "an engine that makes no images makes maps"
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    return EngineEstimator(engine=engine, kind=made.kind, device_name=name, dtype=chosen)
