"""Loading an engine in the process that runs it. Imports torch.

Tested in tests/engines/, with the engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from engines.estimator import EngineEstimator, MapEngine
from engines.family import Family
from engines.interfaces import Target
from engines.options import Value
from unicon.devices import floating_dtype, usable_device


class Wanted(NamedTuple):
    """A `Target` whose device and data type may be left open."""

    folder: Path | None
    device: str | None
    dtype: str | None
    base: Path | None


def load(family: Family, name: str, options: Mapping[str, Value], wanted: Wanted) -> Any:
    """Load an engine, see `EngineSpec.load`.

    Raises:
        ValueError: The device or the data type does not exist.
    """
    place = usable_device(wanted.device)
    dtype = wanted.dtype or ("float16" if place.type == "cuda" else "float32") if family.has_dtype else "float32"
    floating_dtype(dtype)
    engine = family.load(name, options, Target(wanted.folder, str(place), dtype, wanted.base))
    if not isinstance(engine, MapEngine):
        return engine
    made = family.makes(name, options, wanted.folder)
    assert made is not None, "a MapEngine makes a condition"
    kind_of_device = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    return EngineEstimator(engine=engine, kind=made.kind, device_name=kind_of_device, dtype=dtype)
