"""The families of engines by name. To add one, write a file like `marigold.py` and add its family here."""

from __future__ import annotations

from collections.abc import Mapping

from engines.controlnet import ControlNet
from engines.controlnet_aux import ControlNetAux
from engines.family import Family
from engines.marigold import Marigold
from engines.transformers_depth import TransformersDepth
from engines.unicon_engine import UniConFamily

_FAMILIES: tuple[Family, ...] = (
    UniConFamily(),
    ControlNetAux(),
    TransformersDepth(),
    Marigold(),
    ControlNet(),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _FAMILIES}
