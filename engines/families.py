"""The families of engines by name. To add one, write a file like `marigold.py` and add its family here.

Tested in tests/engines/test_spec.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from engines.controlnet import ControlNet
from engines.controlnet_aux import ControlNetAux
from engines.family import Family
from engines.marigold import Marigold
from engines.transformers_depth import TransformersDepth

_FAMILIES: tuple[Family, ...] = (
    ControlNetAux(),
    TransformersDepth(),
    Marigold(),
    ControlNet(),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _FAMILIES}
